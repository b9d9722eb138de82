"""Flower Grids: one chain of filters, who the clients are, and the grid in this process."""
