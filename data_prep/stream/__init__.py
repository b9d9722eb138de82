"""Images that are answered, not stored: found, decoded and encoded as a model's tokens were."""
