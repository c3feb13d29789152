"""SETTINGS: the schema of whisperd.yaml, its loading, and the options of one recording from profiles and tickets."""
