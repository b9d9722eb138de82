"""Who the clients are, and which images each of them gets."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep import PrepError
from data_prep.options import option
from data_prep.splits.kinds import ClientSplit, describe_splits

if TYPE_CHECKING:
    from data_prep.images.image_set import ImageSet
    from data_prep.splits.report import SplitReport
    from data_prep.splits.rows import Rows

_PANEL = "Clients"


@dataclass(frozen=True)
class SplitSettings:
    """A split of the training images among clients, or the one client that has them all."""

    _: KW_ONLY
    clients: int | None = option(
        "Number of training shards; default 4, or one for each owner.", None, panel=_PANEL
    )
    split: str = option(
        "\n\n".join(["Which client gets which images.", *describe_splits()]), "iid", panel=_PANEL
    )
    client: str = option(
        "On a device: all images are this client's; makes OUT/CLIENT.", "", panel=_PANEL
    )

    def check_split(self) -> None:
        """Find what is wrong without any image.

        Raises:
            PrepError: the split is unknown, or the client's name cannot be a folder's.
        """
        ClientSplit.parse(self.split)
        if not self.client:
            return
        if Path(self.client).name != self.client or self.client.startswith("."):
            raise PrepError(f"The client {self.client!r} must be a plain name for a folder.")
        if self.client == "test":
            raise PrepError("A client cannot be called test: that is the test shard's name.")
        if self.clients is not None or self.split != "iid":
            raise PrepError(
                f"All images belong to the client {self.client}: leave --clients and --split out."
            )

    def deal(self, train: ImageSet, seed: int) -> tuple[dict[str, Rows], SplitReport | None]:
        """Return each client's rows of the training images, and class counts of a split.

        Raises:
            PrepError: the images cannot be split in this way.
        """
        import numpy as np

        from data_prep.splits.clients import split_clients
        from data_prep.splits.report import SplitReport

        if self.client:
            return {self.client: np.arange(len(train))}, None
        split = ClientSplit.parse(self.split)
        dealt = split_clients(train, split, self.clients, seed)
        owners: list[str] = []
        if split.kind == "natural" and train.owners is not None:
            owners = [str(train.owners[rows[0]]) for rows in dealt]
        report = SplitReport.of_parts(train.labels, train.class_names, dealt, owners)
        return dict(zip(report.clients, dealt, strict=True)), report
