"""MEDIA: turns an upload into samples, and samples into windows of speech."""
