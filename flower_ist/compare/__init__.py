"""Compare strategies on the same shards, seeds, evaluation and meter: ``flower-ist compare``."""
