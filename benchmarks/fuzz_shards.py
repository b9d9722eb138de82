"""Fuzz the shard reader: a text shard, a folder's ``meta.json``, an array file.

    python benchmarks/fuzz_shards.py -max_total_time=600 [any other option of libFuzzer]

It needs atheris (``pip install atheris``), which is not a dependency of the project. An input may
raise :class:`ShardError` with a message or be read. Anything else, more than 10 s, or more than 2
GiB is a crash.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("Fuzzing needs atheris: pip install atheris, best into a venv of its own.")

import numpy as np

# Coverage is counted in what is imported here.
with atheris.instrument_imports(include=["flower_ist", "numpy.lib._format_impl"]):
    from flower_ist.tokens.meta import Encoder, Mask, ShardMeta
    from flower_ist.tokens.shard import ShardError, open_shard
    from flower_ist.tokens.writer import ShardWriter, write_text

_LIMITS = ["-rss_limit_mb=2048", "-timeout=10"]
_FILES = ("shard.json", "meta.json", "tokens.npy", "labels.npy")


class Reader:
    """Put an input in the place of one file of a good shard, and read the shard."""

    def __init__(self, folder: Path) -> None:
        self.good = folder / "good"
        self.text = folder / "shard.json"
        self.damaged = folder / "damaged"
        meta = ShardMeta(
            num_examples=2,
            dim=3,
            class_names=("cat", "dog"),
            encoder=Encoder(name="vit", weights_sha256="00", image_size=28, patch_size=14),
            mask=Mask(kind="random", ratio=0.5, seed=3, patches=4, kept=2),
            image_bytes=2,
            image_file_bytes=2,
            masked_image_bytes=1,
            token_dtype="int8",
        )
        with ShardWriter(self.good, meta) as writer:
            writer.append(np.eye(2, 3, dtype=np.float32), np.array([0, 1]), np.array([4, 5]))
        write_text(open_shard(self.good), self.text)
        shutil.copytree(self.good, self.damaged)

    def one_input(self, data: bytes) -> None:
        """Read one input: its first byte names the file that it stands for.

        Raises:
            Exception: anything but the documented error is a bug.
        """
        name, content = _FILES[data[0] % len(_FILES) if data else 0], data[1:]
        path = self.damaged / name
        path.write_bytes(content)
        try:
            shard = open_shard(path if name == "shard.json" else self.damaged, verify=True)
            shard.batch(slice(None))
        except ShardError as refusal:
            if "\n" in str(refusal).replace(repr(str(path)), ""):
                raise RuntimeError("A refusal must be one sentence.") from refusal
        finally:
            if name != "shard.json":
                shutil.copy(self.good / name, path)

    def seeds(self) -> list[bytes]:
        """Return inputs that are read without an error, to start from."""
        files = [self.text, *(self.good / name for name in _FILES[1:])]
        return [bytes([number]) + file.read_bytes() for number, file in enumerate(files)]


def main() -> None:
    """Fuzz until libFuzzer's options say stop."""
    with tempfile.TemporaryDirectory() as name:
        reader = Reader(Path(name))
        corpus = Path(name) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(reader.seeds()):
            (corpus / str(number)).write_bytes(seed)
        options = ["-max_len=8192", *_LIMITS, *sys.argv[1:]]
        atheris.Setup([sys.argv[0], *options, str(corpus)], reader.one_input)
        warnings.simplefilter("ignore")  # numpy warns of headers that Python 2 wrote
        atheris.Fuzz()


# Without the usual guard: nothing here is of use to an importer, and `make bench` passes it over.
main()
