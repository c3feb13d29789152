"""whisperd.yaml: its schema, its loading, and what profiles change."""
