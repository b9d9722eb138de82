"""Which client gets which image."""
