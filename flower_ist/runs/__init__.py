"""A run: start it, log one line per round, keep checkpoints, report on it and watch it."""
