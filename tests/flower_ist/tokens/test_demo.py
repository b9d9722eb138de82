"""The embedded tokens: shares of the training set, balance, and files a bundle may carry."""

from pathlib import Path

import numpy as np
import pytest

from flower_ist.tokens import demo as demo_tokens
from flower_ist.tokens.shard import ShardError, TokenShard


@pytest.mark.parametrize("num_clients", [1, 4, 7, 400])
def test_demo_shares_are_disjoint_and_cover_the_4000_rows(num_clients):
    shares = [demo_tokens.train_shard(client, num_clients) for client in range(num_clients)]
    ids = np.concatenate([share.image_ids for share in shares])
    assert len(ids) == len(np.unique(ids)) == 4000
    for client, share in enumerate(shares):
        assert isinstance(share, TokenShard)
        assert share.meta.client == f"demo-{client}"
        assert share.meta.num_examples == len(share) >= 4000 // num_clients
        assert share.meta.image_bytes == 784 * len(share)
        # 24 of 49 patches of 4 x 4 pixels.
        assert share.meta.masked_image_bytes == 384 * len(share)


def test_demo_sets_are_balanced_and_their_files_fit_an_app_bundle():
    test = demo_tokens.test_shard()
    assert np.bincount(test.labels).tolist() == [200] * 10
    assert np.bincount(demo_tokens.train_shard(0, 1).labels).tolist() == [400] * 10
    assert test.meta.split == "test"
    assert test.meta.encoder == demo_tokens.train_shard(1, 2).meta.encoder
    for file in Path(demo_tokens.__file__).parent.glob("*.json"):
        assert file.stat().st_size < 1_000_000
    # Every tenth row is a random draw of classes, not one class.
    assert len(np.unique(demo_tokens.train_shard(0, 10).labels)) == 10


@pytest.mark.parametrize(
    ("client", "num_clients", "message"),
    [
        (0, 0, "1 to 400 clients, not 0"),
        (0, 401, "not 401"),
        (-1, 4, "one of 0 to 3"),
        (4, 4, "Client 4"),
    ],
)
def test_demo_clients_out_of_range_are_refused(client, num_clients, message):
    with pytest.raises(ShardError, match=message):
        demo_tokens.train_shard(client, num_clients)
