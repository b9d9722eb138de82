"""The client: opens its token shard, trains the net it is sent, replies. Needs no encoder."""
