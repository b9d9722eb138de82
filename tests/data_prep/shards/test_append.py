"""New images that join a client's shard."""

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest

from data_prep import PrepError
from data_prep.images.classes import write_classes
from data_prep.shards.prep import prep
from data_prep.shards.work_folder import WorkFolder
from flower_ist.tokens.edit import drop
from flower_ist.tokens.shard import open_shard
from tests.fakes import ROOT
from tests.fakes.prep_runs import command


@pytest.fixture
def device(settings, tmp_path):
    """A client's shard of the first 60 images, and the settings that let 40 more join it."""
    with np.load(settings.source) as file:
        x, y = file["x"], file["y"]
    names = np.array(list("abcde"))
    for name, part in (("old", slice(60)), ("new", slice(60, 100)), ("all", slice(100))):
        np.savez(tmp_path / f"{name}.npz", x=x[part], y=y[part], class_names=names)
    settings = replace(
        settings, source=str(tmp_path / "old.npz"), client="porch", test_share=0.0, clients=None
    )
    prep(settings)
    return replace(settings, source=str(tmp_path / "new.npz"), append=True)


def whole(device, tmp_path):
    """What the shard would be if all 100 images had been there at once."""
    together = replace(
        device, source=str(tmp_path / "all.npz"), out=tmp_path / "whole", append=False
    )
    prep(together)
    return open_shard(tmp_path / "whole" / "porch", verify=True)


def same(one, other):
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name])
    assert replace(one.meta, source="") == replace(other.meta, source="")


def test_the_shard_is_as_if_all_images_had_been_there_at_once(device, tmp_path, monkeypatch):
    """Ids go on, so that every image has the mask that it would have had."""
    encoded = []
    real = WorkFolder.write
    monkeypatch.setattr(
        WorkFolder, "write", lambda self, n, rows: (encoded.append(n), real(self, n, rows))
    )
    assert prep(device) == [device.out / "porch"]
    assert encoded == [0, 1, 2, 3]  # ten images each: the old ones are not encoded again
    same(open_shard(device.out / "porch", verify=True), whole(device, tmp_path))
    assert sorted(path.name for path in device.out.iterdir()) == [
        "appended.jsonl",
        "classes.json",
        "porch",
    ]
    (line,) = (device.out / "appended.jsonl").read_text().splitlines()
    noted = json.loads(line)
    assert (noted["client"], noted["source"], noted["images"]) == ("porch", "new", 40)
    assert (noted["first_id"], noted["last_id"]) == (60, 99)


def test_the_same_images_do_not_join_twice_unless_they_were_dropped(device):
    prep(device)
    with pytest.raises(PrepError, match="joined porch before, as ids 60 to 99: give only new"):
        prep(device)
    assert len(open_shard(device.out / "porch")) == 100
    drop(device.out / "porch", range(60, 100))
    prep(device)
    assert len(open_shard(device.out / "porch", verify=True)) == 100


@pytest.mark.parametrize(
    "step", ["encode_share", "write_file", "join", "append_file", "remove_work"]
)
def test_a_stop_at_any_step_loses_and_doubles_nothing(device, tmp_path, monkeypatch, step):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"data_prep.shards.append.{step}", stop)
    with pytest.raises(KeyboardInterrupt):
        prep(device)
    monkeypatch.undo()
    open_shard(device.out / "porch", verify=True)
    prep(device)
    same(open_shard(device.out / "porch", verify=True), whole(device, tmp_path))
    assert len((device.out / "appended.jsonl").read_text().splitlines()) == 1
    assert not (device.out / ".prep").exists()


def test_another_command_after_one_that_only_had_to_tidy_up(device, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("data_prep.shards.append.append_file", stop)
    with pytest.raises(KeyboardInterrupt):
        prep(device)
    monkeypatch.undo()
    np.savez(tmp_path / "more.npz", x=np.zeros((3, 8, 8), np.uint8), y=[0, 1, 2],
             class_names=np.array(list("abcde")))  # fmt: skip
    prep(replace(device, source=str(tmp_path / "more.npz")))
    assert len(open_shard(device.out / "porch", verify=True)) == 103
    assert len((device.out / "appended.jsonl").read_text().splitlines()) == 2


def test_a_process_that_is_killed_goes_on(device, tmp_path):
    words = [*command(device), "--client", "porch", "--test-share", "0", "--append"]
    words[words.index("--batch-size") + 1] = "1"
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        while not list(device.out.glob(".prep/chunk-*.npz")):
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert len(open_shard(device.out / "porch", verify=True)) in (60, 100)
    prep(device)
    same(open_shard(device.out / "porch", verify=True), whole(device, tmp_path))


def test_new_classes_come_with_a_longer_schema(device, tmp_path):
    np.savez(tmp_path / "new.npz", x=np.zeros((2, 8, 8), np.uint8), y=[0, 1],
             class_names=np.array(["f", "a"]))  # fmt: skip
    with pytest.raises(PrepError, match="images of the class 'f', which the class schema lacks"):
        prep(device)
    write_classes(tmp_path / "longer.json", list("fabcde"))
    prep(replace(device, classes=tmp_path / "longer.json"))
    shard = open_shard(device.out / "porch", verify=True)
    assert shard.meta.class_names == tuple("fabcde")
    assert shard.labels[:5].tolist() == [1, 2, 3, 4, 5]
    assert shard.labels[-2:].tolist() == [0, 1]


def test_new_images_are_read_and_resized_as_the_old_ones_were(device, tmp_path):
    """The options of the first command need not be given again; others are refused."""
    shutil.rmtree(device.out)
    choices = {"interpolation": "bilinear", "alpha": "ignore", "orientation": "exif"}
    first = replace(device, source=str(tmp_path / "old.npz"), append=False, **choices)
    prep(first)
    meta = open_shard(device.out / "porch").meta
    assert meta.encoder.interpolation == "bilinear"
    assert meta.reading == {"alpha": "ignore", "orientation": "exif"}
    with pytest.raises(PrepError, match=r"\(bit_depth was None and is 12\)"):
        prep(replace(device, bit_depth=12))
    prep(device)
    same(open_shard(device.out / "porch", verify=True), whole(replace(device, **choices), tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interpolation": "bilinear"}, r"\(interpolation was bicubic and is bilinear\)"),
        ({"alpha": "ignore"}, r"\(alpha was white and is ignore\)"),
        ({"mask": "grid"}, r"made otherwise \(mask was random and is grid\): leave these options"),
        ({"dtype": "int8"}, r"made otherwise \(dtype was float16 and is int8\)"),
        ({"encoder": "embedded"}, "needs the encoder 'tiny'"),
        ({"client": ""}, "join one client's shard: name it with --client"),
        ({"client": "none"}, "There is no token shard at .*none"),
        ({"num_shards": 2}, "--append encodes in one process"),
        ({"weights": "random"}, r"not the one of the model's tokens \(weights_sha256 was"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_shard_is_as_it_was(device, changes, message):
    before = (device.out / "porch" / "meta.json").read_bytes()
    with pytest.raises(Exception, match=message):
        prep(replace(device, **changes))
    assert (device.out / "porch" / "meta.json").read_bytes() == before
    assert os.listdir(device.out / "porch") == os.listdir(device.out / "porch")
    assert not (device.out / ".prep").exists()
