"""The server: reads the run's settings, runs a strategy, evaluates, and records the run."""
