import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from data_prep import PrepError
from data_prep.commands.app import app
from data_prep.encoders.open import open_encoder
from data_prep.encoders.settings import EncoderSettings
from data_prep.images.image_set import ImageSet
from data_prep.patches.settings import MaskSettings
from data_prep.patches.write import write_masked
from data_prep.pretrain import run as module
from data_prep.pretrain.run import pretrain
from data_prep.pretrain.settings import PretrainSettings
from data_prep.pretrain.train import Pretraining
from data_prep.sources.open import read_source
from flower_ist.files import NotWrittenError
from tests.fakes.full_disk import files_of_at_most

TINY = PretrainSettings(
    image_size=8,
    patch_size=2,
    dim=16,
    depth=1,
    heads=2,
    decoder_dim=12,
    epochs=3,
    batch_size=16,
    learning_rate=1e-3,
)


def images(count=40, seed=0):
    rng = np.random.default_rng(seed)
    return ImageSet(
        images=rng.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8),
        labels=np.zeros(count, np.int64),
        image_ids=np.arange(count),
        class_names=("all",),
        source="noise",
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrained") / "run"
    pretrain(images(), out, TINY, label="tiny")
    return out


@pytest.fixture(autouse=True)
def without_pictures(whole_run, monkeypatch):
    """Pictures are the whole run's; to draw them takes longer than to train."""
    monkeypatch.setattr(module, "_draw_losses", lambda lines, file: None)
    monkeypatch.setattr(module, "_draw_reconstruction", lambda training, data, file: None)


def test_the_encoder_file_describes_itself_and_holds_half_precision(whole_run):
    encoder = open_encoder(EncoderSettings(encoder=str(whole_run / "encoder.safetensors")))
    assert (encoder.grid, encoder.dim) == ((4, 4), 16)
    assert encoder.record.name == "tiny"
    assert encoder.record.normalization == "half"
    weights = load_file(whole_run / "encoder.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_every_epoch_has_a_line_and_pictures_are_drawn(whole_run):
    lines = [json.loads(line) for line in (whole_run / "loss.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(0 < line["loss"] < 3 for line in lines)
    for name in ("loss.png", "reconstruction.png"):
        with Image.open(whole_run / name) as picture:
            assert min(picture.size) > 100


def test_a_run_that_was_stopped_ends_as_one_that_was_not(whole_run, tmp_path, monkeypatch):
    """Stopped twice: within epoch 2, and between epoch 2's line and its state."""
    train_epoch = Pretraining.train_epoch

    def stops(self, data):
        for step, values in enumerate(train_epoch(self, data)):
            if self.epoch == 1 and step == 1:
                raise KeyboardInterrupt
            yield values

    out = tmp_path / "run"
    monkeypatch.setattr(Pretraining, "train_epoch", stops)
    with pytest.raises(KeyboardInterrupt):
        pretrain(images(), out, TINY)
    monkeypatch.setattr(Pretraining, "train_epoch", train_epoch)
    assert not (out / "encoder.safetensors").exists()

    def no_room(self, file, facts, lines):
        raise PrepError("The disk is full.")

    with monkeypatch.context() as full:
        full.setattr(Pretraining, "save", no_room)
        with pytest.raises(PrepError, match="full"):
            pretrain(images(), out, TINY)
    assert len((out / "loss.jsonl").read_text().splitlines()) == 2
    pretrain(images(), out, TINY)

    ended, unbroken = (load_file(run / "encoder.safetensors") for run in (out, whole_run))
    assert all(torch.equal(ended[name], unbroken[name]) for name in unbroken)
    losses = [
        [json.loads(line)["loss"] for line in (run / "loss.jsonl").read_text().splitlines()]
        for run in (out, whole_run)
    ]
    assert losses[0] == losses[1]


def test_a_run_that_ended_while_its_first_state_was_written_begins_anew(whole_run, tmp_path):
    """A kill leaves the first epoch's line and a part of the state under a temporary name."""
    (tmp_path / "loss.jsonl").write_text('{"epoch": 1, "lo')
    (tmp_path / ".state.pt.0123.tmp").write_bytes(b"half")
    pretrain(images(), tmp_path, TINY, label="tiny")
    encoders = [(run / "encoder.safetensors").read_bytes() for run in (tmp_path, whole_run)]
    assert encoders[0] == encoders[1]
    assert len((tmp_path / "loss.jsonl").read_text().splitlines()) == 3


def test_other_images_of_the_same_number_and_size_are_refused(whole_run):
    data = images()
    data.images[7, 3, 3] ^= 1
    with pytest.raises(PrepError, match="images was 40 of noise"):
        pretrain(data, whole_run, TINY)


def test_masked_images_are_refused(tmp_path):
    """What was dropped is black in them: an encoder would learn to draw that."""
    settings = MaskSettings(image_size=8, patch_size=2, ratio=0.75)
    write_masked(images(), tmp_path / "kept", settings)
    with pytest.raises(PrepError, match="of noise are masked already: give the images themselves"):
        pretrain(read_source(tmp_path / "kept"), tmp_path / "run", TINY)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_trained_again(whole_run, monkeypatch):
    monkeypatch.setattr(Pretraining, "train_epoch", None)
    before = (whole_run / "encoder.safetensors").read_bytes()
    pretrain(images(), whole_run, TINY, label="tiny")
    assert (whole_run / "encoder.safetensors").read_bytes() == before


def test_another_run_in_the_folder_is_refused(whole_run, tmp_path):
    with pytest.raises(PrepError, match=r"settings\.seed was 0 and is 1"):
        pretrain(images(), whole_run, replace(TINY, seed=1))
    with pytest.raises(PrepError, match="images"):
        pretrain(images(41), whole_run, TINY)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(PrepError, match="holds no run"):
        pretrain(images(), tmp_path, TINY)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_damaged_state_is_refused(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(PrepError, match="cannot be read"):
        pretrain(images(), tmp_path, TINY)


def test_the_rate_rises_and_falls_as_half_a_cosine():
    settings = replace(TINY, epochs=5, warmup_epochs=1, learning_rate=0.8)
    rates = [settings.learning_rate_at(epoch) for epoch in (0, 0.5, 1, 3, 5)]
    assert rates == pytest.approx([0, 0.4, 0.8, 0.4, 0])


def test_a_pictured_image_is_whole_seen_in_part_and_completed():
    training = Pretraining(TINY)
    whole, seen, drawn = training.reconstruct(images(4))
    gray = (seen[:, 0] - 0.5).abs() < 1e-6
    assert 4 * 64 * 0.7 < int(gray.sum()) <= 4 * 64 * 0.8
    assert torch.equal(whole[:, 0][~gray], seen[:, 0][~gray])
    assert torch.equal(whole[:, 0][~gray], drawn[:, 0][~gray])
    assert not torch.allclose(whole[:, 0][gray], drawn[:, 0][gray])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"dim": 18}, "multiple of 4"),
        ({"heads": 3}, "cannot be shared by 3 heads"),
        ({"mask_ratio": 0.0}, "nothing to learn"),
        ({"mask_ratio": 1.0}, "below 1"),
        ({"mask_ratio": 0.99}, "keeps none of 16"),
        ({"least_crop": 0.0}, "least-crop"),
        ({"learning_rate": float("nan")}, "learning-rate"),
        ({"weight_decay": -1.0}, "weight-decay"),
        ({"normalization": "mine"}, "unknown"),
        ({"image_size": 9}, "9"),
        ({"vit": "resnet18"}, "resnet18"),
        ({"vit": "vit_huge_nonsense"}, "vit_huge_nonsense"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_of_no_use_are_refused(change, sentence):
    with pytest.raises(PrepError, match=sentence):
        Pretraining(replace(TINY, **change))


def test_an_absent_device_is_refused():
    with pytest.raises(PrepError, match="device 'nonsense'"):
        Pretraining(TINY, "nonsense")


def test_a_loss_that_is_no_number_stops_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "Pretraining", _Exploding)
    with pytest.raises(PrepError, match="lower learning rate"):
        pretrain(images(), tmp_path / "run", TINY)


class _Exploding(Pretraining):
    def __init__(self, settings, device):
        super().__init__(settings, device)
        with torch.no_grad():
            self.model.draw.bias.fill_(float("inf"))


def test_a_full_disk_is_a_sentence(tmp_path):
    with files_of_at_most(8192), pytest.raises(NotWrittenError, match="cannot be written"):
        pretrain(images(), tmp_path / "run", TINY)


def test_the_command_trains_and_goes_on(tmp_path):
    data = images(20)
    np.savez(tmp_path / "images.npz", x=data.images, y=data.labels)
    options = "--image-size 8 --patch-size 2 --dim 16 --depth 1 --decoder-dim 12 --epochs 1"
    command = ["pretrain", str(tmp_path / "images.npz"), "--out", str(tmp_path / "run")]
    for _ in range(2):
        result = CliRunner().invoke(app, [*command, *options.split(), "--threads", "1"])
        assert result.exit_code == 0, result.output
        assert "encoder.safetensors" in result.output
    result = CliRunner().invoke(app, [*command, *options.split(), "--heads", "5"])
    assert result.exit_code == 1
    assert "cannot be shared by 5 heads" in result.output
