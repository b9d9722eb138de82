"""Flower strategies: sub-models and closed forms, and how replies are judged."""
