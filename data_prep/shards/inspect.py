"""What token shards hold, whether they are whole, and whether they belong together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from data_prep import PrepError
from flower_ist.console import cell
from flower_ist.differences import differences
from flower_ist.errors import first_line
from flower_ist.tables import new_table
from flower_ist.tokens.class_names import class_difference
from flower_ist.tokens.meta import ShardMeta, encoder_space
from flower_ist.tokens.shard import META_FILE, ShardError, TokenShard, open_shard

_CLIENT = re.compile(r"client-(\d+)")
_MB = 1e6
_SHA_CHARACTERS = 12
_COLUMNS = (
    "shard",
    "examples",
    "encoder",
    "tokens",
    "mask",
    "MB\nnative",
    "MB\nkept",
    "MB\ntokens",
)


@dataclass(frozen=True)
class Inspection:
    """One shard that was looked at: its path, and the shard or what is wrong with it."""

    path: Path
    shard: TokenShard | None
    damage: str = ""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.resolve().name


@dataclass(frozen=True)
class FolderReport:
    """All shards of a folder and what does not fit.

    Attributes:
        inspections: One a shard, clients by number first.
        disagreements: A sentence for each shard and thing in which it differs from the first one.
    """

    inspections: tuple[Inspection, ...]
    disagreements: tuple[str, ...]

    @property
    def damages(self) -> tuple[str, ...]:
        """A sentence for each shard that is damaged."""
        return tuple(found.damage for found in self.inspections if found.damage)

    @property
    def sound(self) -> bool:
        """Whether no shard is damaged and all can be used together."""
        return not self.damages and not self.disagreements


def find_shards(path: Path) -> list[Path]:
    """Return ``path`` itself if it is a shard, else the shards in it, clients by number first.

    A shard is a folder with a meta file, also one that lacks its arrays, or a text file given
    itself. Folders called ``client-*`` and ``test`` count as shards in any state, so that a broken
    one is not overlooked. Names that start with a dot are ignored.

    Raises:
        PrepError: there is no shard.
    """
    if path.is_file() or (path / META_FILE).is_file():
        return [path]
    try:
        folders = [folder for folder in path.iterdir() if folder.is_dir() and _is_shard(folder)]
    except OSError as err:
        raise PrepError(f"{path} cannot be listed: {first_line(err)}.") from err
    if not folders:
        raise PrepError(
            f"{path} holds no token shard: give a shard's folder, or a folder with client-0 and so "
            "on in it."
        )
    return sorted(folders, key=_by_number)


def inspect_shards(path: Path) -> FolderReport:
    """Open one shard or each shard of a folder and check every byte against its hash.

    A damaged shard raises no error: it is reported beside the others.

    Raises:
        PrepError: there is no shard at all.
    """
    inspections = tuple(_inspect(shard) for shard in find_shards(path))
    whole = [(found.name, found.shard.meta) for found in inspections if found.shard is not None]
    return FolderReport(inspections, tuple(disagreements(whole)))


def disagreements(shards: Sequence[tuple[str, ShardMeta]]) -> list[str]:
    """Return a sentence for each named shard and thing in which it differs from the first one.

    What counts is that all tokens live in one space and that labels mean the same: encoder and
    classes.
    """
    if not shards:
        return []
    first, expected = shards[0]
    sentences = []
    for name, meta in shards[1:]:
        if differ := differences(_space(expected), _space(meta)):
            sentences.append(
                f"{name} is not of the space of {first} ({differ}): encode both with the same "
                "encoder and settings."
            )
        if difference := class_difference(meta.class_names, expected.class_names, name, first):
            sentences.append(
                f"{name} and {first} have different classes: {difference}; encode one of them "
                "again with flower-ist prep --classes FILE."
            )
    return sentences


def to_table(report: FolderReport) -> Table:
    """Return a table with a row for each shard; MB are 1,000,000 bytes.

    ``native`` are the images' uncompressed bytes, ``kept`` those of the patches that the masks
    left, ``tokens`` what the shard stores for them, scales included.
    """
    table = new_table()
    for heading in _COLUMNS:
        table.add_column(
            heading,
            justify="right" if heading.startswith("MB") else "left",
            no_wrap=heading != "encoder",
            overflow="fold",
            min_width=_SHA_CHARACTERS if heading == "encoder" else None,
        )
    for found in report.inspections:
        name = cell(found.name)
        if found.shard is None:
            table.add_row(name.append("\ndamaged", style="red"))
        else:
            table.add_row(name.append("\nwhole"), *map(Text, _cells(found.shard)))
    return table


def _cells(shard: TokenShard) -> list[str]:
    meta, encoder, mask = shard.meta, shard.meta.encoder, shard.meta.mask
    stored = len(shard) * shard.token_bytes_per_example
    views = "1 view" if mask.views == 1 else f"{mask.views} views"
    return [
        f"{len(shard)}\n{meta.num_classes} classes",
        f"{encoder.name}\n{encoder.weights_sha256[:_SHA_CHARACTERS]}",
        f"{meta.dim}\n{meta.token_dtype}",
        f"{mask.kind} {mask.ratio:g}\n{mask.kept} of {mask.patches}\nseed {mask.seed}\n{views}",
        _megabytes(meta.image_bytes),
        _megabytes(meta.masked_image_bytes),
        _megabytes(stored),
    ]


def _inspect(path: Path) -> Inspection:
    try:
        return Inspection(path, open_shard(path, verify=True))
    except ShardError as err:
        return Inspection(path, None, str(err))


def _space(meta: ShardMeta) -> dict[str, object]:
    encoder = encoder_space(meta.encoder)
    return {"dim": meta.dim, **{f"encoder.{name}": value for name, value in encoder.items()}}


def _megabytes(count: int) -> str:
    return f"{count / _MB:.2f}" if count < 100 * _MB else f"{count / _MB:,.0f}"


def _is_shard(folder: Path) -> bool:
    if folder.name.startswith("."):
        return False
    named = folder.name == "test" or _CLIENT.fullmatch(folder.name) is not None
    return named or (folder / META_FILE).is_file()


def _by_number(folder: Path) -> tuple[bool, int, str]:
    client = _CLIENT.fullmatch(folder.name)
    return client is None, int(client[1]) if client else 0, folder.name
