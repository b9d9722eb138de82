"""Kept patches of devices that are too weak to encode."""
