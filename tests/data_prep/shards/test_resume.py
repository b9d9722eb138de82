"""A run that is stopped, shared or given again with other settings or images."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_prep import PrepError
from data_prep.shards.prep import prep
from data_prep.shards.work_folder import WorkFolder
from data_prep.sources.open import read_source
from tests.fakes import ROOT
from tests.fakes.prep_runs import command, contents


def test_a_run_killed_in_the_middle_goes_on_to_the_same_bytes(settings, whole):
    """A process of its own, one image a batch, ended by SIGKILL once three chunks are there."""
    with subprocess.Popen(
        command(settings), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        while len(list(settings.out.glob(".prep/chunk-*.npz"))) < 3:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    finished = {int(path.stem[6:]) for path in settings.out.glob(".prep/chunk-*.npz")}
    assert 3 <= len(finished) < 20
    assert [path.name for path in settings.out.iterdir()] == [".prep"]
    encoded = resume_and_count(settings)
    assert encoded == [number for number in range(20) if number not in finished]
    assert contents(settings.out) == whole


def resume_and_count(settings):
    """Run prep and return the numbers of the chunks that it encoded."""
    encoded = []
    with pytest.MonkeyPatch.context() as patch:
        real = WorkFolder.write
        patch.setattr(
            WorkFolder, "write", lambda self, n, rows: (encoded.append(n), real(self, n, rows))
        )
        prep(settings)
    return encoded


@pytest.mark.parametrize("moment", [0, 7, 19])
def test_an_error_at_any_chunk_is_gone_on_from(settings, whole, monkeypatch, moment):
    real = WorkFolder.write

    def stop(self, chunk, rows):
        if chunk == moment:
            raise KeyboardInterrupt
        real(self, chunk, rows)

    monkeypatch.setattr(WorkFolder, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        prep(settings)
    monkeypatch.undo()
    assert resume_and_count(settings) == list(range(moment, 20))
    assert contents(settings.out) == whole


@pytest.mark.parametrize("step", ["assemble", "write_reports"])
def test_a_stop_after_the_last_chunk_encodes_nothing_again(settings, whole, monkeypatch, step):
    """Also where all shards have their names already and only the reports lack."""

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"data_prep.shards.prep.{step}", stop)
    with pytest.raises(KeyboardInterrupt):
        prep(settings)
    monkeypatch.undo()
    assert resume_and_count(settings) == []
    assert contents(settings.out) == whole


def test_a_removal_of_the_work_that_was_cut_short_is_finished(settings, whole, monkeypatch):
    """All chunks but the last and the plan are gone; all shards are complete."""

    def half(path):
        for number in range(19):
            (path / f"chunk-{number:06d}.npz").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr("data_prep.shards.prep.remove_work", half)
    with pytest.raises(KeyboardInterrupt):
        prep(settings)
    monkeypatch.undo()
    assert resume_and_count(settings) == []
    assert contents(settings.out) == whole


def test_two_processes_one_after_the_other_equal_one(settings, whole):
    first, second = (replace(settings, num_shards=2, shard_index=i) for i in (0, 1))
    assert prep(first) == []
    assert [path.name for path in settings.out.iterdir()] == [".prep"]
    numbers = [int(path.stem[6:]) for path in settings.out.glob(".prep/chunk-*")]
    assert sorted(numbers) == list(range(0, 20, 2))
    assert len(prep(second)) == 5
    assert contents(settings.out) == whole


def test_work_folders_of_machines_without_a_shared_disk_are_copied_together(
    settings, whole, tmp_path
):
    for index in range(3):
        out = tmp_path / f"machine-{index}"
        assert prep(replace(settings, out=out, num_shards=3, shard_index=index)) == []
        shutil.copytree(out / ".prep", settings.out / ".prep", dirs_exist_ok=True)
    assert resume_and_count(settings) == []
    assert contents(settings.out) == whole


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same_bytes(settings, whole, workers):
    prep(replace(settings, workers=workers))
    assert contents(settings.out) == whole


CHANGES = {
    "mask ratio": {"mask_ratio": 0.75},
    "mask": {"mask": "block"},
    "seed": {"seed": 1},
    "token dtype": {"dtype": "int8"},
    "pool": {"pool": "mean"},
    "image size": {"image_size": 24},
    "interpolation": {"interpolation": "bilinear"},
    "compute dtype": {"compute_dtype": "bfloat16"},
    "number of views": {"views": 2},
    "list of shards": {"clients": 3},
    "split": {"split": "quantity:linear"},
    "client": {"client": "me"},
    "number of images in a chunk": {"chunk_images": 11},
    "encoder": {"weights": "random"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_command_does_not_go_on_with_this_ones_work(settings, name):
    prep(replace(settings, num_shards=2))
    before = contents(settings.out)
    with pytest.raises(PrepError, match=rf"of another command \(.*{name}\b"):
        prep(replace(settings, num_shards=2, **CHANGES[name]))
    assert contents(settings.out) == before


def test_other_images_do_not_go_on_with_this_ones_work(settings):
    prep(replace(settings, num_shards=2))
    data = read_source(settings.source)
    for change, name in (
        ({"y": data.labels[::-1]}, "list of labels and image ids"),
        ({"x": data.images[:, :, :7]}, "number of native bytes"),
        ({"x": 255 - data.images}, "list of image files or pixels"),
        ({"class_names": np.array(list("abcde"))}, "list of class names"),
    ):
        np.savez(settings.source, **{"x": data.images, "y": data.labels} | change)
        with pytest.raises(PrepError, match=rf"another command \(.*{name}"):
            prep(replace(settings, num_shards=2))


def test_files_that_were_renamed_do_not_go_on_with_this_ones_work(settings, tmp_path):
    """Each row keeps its label and its id, but not its image."""
    folder = tmp_path / "images" / "cat"
    folder.mkdir(parents=True)
    for k in range(10):
        Image.new("L", (8, 8), k).save(folder / f"{k}.bmp")
    cats = replace(settings, source=str(folder.parent), test_share=0.0, num_shards=2)
    cats = replace(cats, chunk_images=2)
    prep(cats)
    (folder / "0.bmp").rename(folder / "x.bmp")
    with pytest.raises(PrepError, match=r"list of image files or pixels .* without '[0-9a-f]"):
        prep(cats)
    (folder / "1.bmp").rename(folder / "0.bmp")
    (folder / "x.bmp").rename(folder / "1.bmp")
    # Two of one size have changed places.
    with pytest.raises(PrepError, match="list of image files or pixels"):
        prep(cats)
    (folder / "0.bmp").rename(folder / "x.bmp")
    (folder / "1.bmp").rename(folder / "0.bmp")
    (folder / "x.bmp").rename(folder / "1.bmp")
    assert len(prep(replace(cats, num_shards=1))) == 4


def test_a_smaller_batch_may_go_on(settings):
    prep(replace(settings, num_shards=2))
    assert len(prep(replace(settings, batch_size=1, workers=2))) == 5


@pytest.mark.slow
def test_ray_gives_the_same_bytes(settings, whole):
    """In a process of its own, as Ray's warnings are not ours to answer for."""
    # A busy machine may need more than Ray's own 30 seconds.
    patient = os.environ | {"RAY_raylet_start_wait_time_s": "200"}
    result = subprocess.run(
        [*command(settings), "--ray"],
        cwd=ROOT,
        env=patient,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert contents(settings.out) == whole
