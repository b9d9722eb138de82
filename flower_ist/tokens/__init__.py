"""The token shard: its format, how it is read, written and checked; the demo's shards."""
