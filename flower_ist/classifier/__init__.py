"""The MLP, its blend with a closed-form head, evaluation on a shard, prediction with a saved model."""
