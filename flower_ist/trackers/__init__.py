"""Send a run log's numbers to an experiment tracker; each of these needs an extra of its own."""
