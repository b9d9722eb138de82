"""How a Ray cluster is shared out; that its tokens are the same is test_prep's."""

import sys

import pytest

from data_prep import PrepError
from data_prep.shards.chunks import Chunk
from data_prep.shards.ray import encode_with_ray, share_cluster


@pytest.mark.parametrize(
    ("device", "cluster", "each", "actors"),
    [
        ("cpu", {"CPU": 16.0}, {"num_cpus": 4}, 3),
        ("cpu", {"CPU": 5.0}, {"num_cpus": 4}, 1),
        ("cpu", {"CPU": 2.0}, {"num_cpus": 1}, 1),
        ("cpu", {"CPU": 1.0}, {"num_cpus": 1}, 1),
        ("mps", {"CPU": 9.0, "GPU": 2.0}, {"num_cpus": 4}, 2),
        ("cuda", {"CPU": 16.0, "GPU": 3.0}, {"num_gpus": 1}, 3),
        ("cuda:0", {"CPU": 16.0, "GPU": 1.0}, {"num_gpus": 1}, 1),
    ],
)
def test_an_actor_takes_a_gpu_or_up_to_four_cpus_and_one_cpu_stays_free(
    device, cluster, each, actors
):
    assert share_cluster(device, cluster) == (each, actors)


def test_a_cluster_without_a_gpu_is_a_sentence():
    with pytest.raises(PrepError, match="The Ray cluster has no GPU: use --device cpu"):
        share_cluster("cuda", {"CPU": 16.0})


def test_ray_that_is_not_installed_is_a_sentence_only_where_there_is_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    run = {"device": "cpu", "batch_size": 1, "workers": 0, "advance": lambda images: None}
    encode_with_ray([], pytest.fail, tmp_path, **run)
    with pytest.raises(PrepError, match="Ray is not installed"):
        encode_with_ray([Chunk(0, 0, slice(0, 3))], pytest.fail, tmp_path, **run)
