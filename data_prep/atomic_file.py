"""A file that appears under its name only when all of it has been written."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from data_prep import PrepError
from data_prep.errors import first_line


@contextmanager
def atomic_file(file: Path, remedy: str = "") -> Iterator[Path]:
    """Give a temporary name beside ``file`` to write to; rename it when the block ends well.

    A file of that name is replaced. Any exception in the block leaves it as it was and removes what
    was written. Processes that write the same file at once do not meet: each has a name of its own.

    Args:
        file: The name at last, in a folder that is there or made in the block.
        remedy: What to do where it cannot be written, as the end of the sentence.

    Raises:
        PrepError: the file cannot be written, for instance on a full disk.
    """
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            # The name must not survive a power cut that the content does not.
            os.fsync(written.fileno())
        os.replace(temporary, file)
    # safetensors reports a full disk as an error of its own.
    except (OSError, SafetensorError) as err:
        raise PrepError(f"{file} cannot be written: {first_line(err)}{remedy}.") from err
    finally:
        with suppress(OSError):
            temporary.unlink()
