"""From an image set to token shards: plan, encode, resume, assemble, inspect."""
