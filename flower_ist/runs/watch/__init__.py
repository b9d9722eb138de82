"""Follow a run as it goes."""
