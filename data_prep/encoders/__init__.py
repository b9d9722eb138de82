"""Frozen encoders, from timm or a file, and their weights."""
