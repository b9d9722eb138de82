"""Everything that a secured Flower deployment needs, written by ``flower-ist deploy init``.

Not part of any app: this runs once, on the machine of the person who sets up the federation.
"""
