"""A gallery on disk: its table of contents, its files, and the writer of both."""
