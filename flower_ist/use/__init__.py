"""A run's model in use: predict, evaluate, export it, and describe it in a card."""
