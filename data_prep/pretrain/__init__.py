"""Train a masked autoencoder on unlabeled images."""
