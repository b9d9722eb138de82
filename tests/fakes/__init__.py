"""Stand-ins that several tests use."""

from pathlib import Path

# The checkout.
ROOT = Path(__file__).parents[2]
