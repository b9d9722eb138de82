"""The text of another library's error, as part of a sentence."""

from flower_ist.errors import first_line, is_lfs_pointer, why_unreadable

__all__ = ["first_line", "is_lfs_pointer", "why_unreadable"]
