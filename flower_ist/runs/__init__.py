"""A run: start it, log a line a round, keep checkpoints, report and watch it."""
