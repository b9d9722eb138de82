"""Which patches of an image are kept. Pure numpy."""
