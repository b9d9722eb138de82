import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from data_prep import PrepError
from data_prep.encoders.checkpoints import METADATA_KEY, read_description, write_encoder
from data_prep.encoders.vit import build_vit
from data_prep.encoders.weights import load_weights, state_sha256
from flower_ist.files import NotWrittenError
from tests.fakes.full_disk import files_of_at_most

SIZES = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
DESCRIPTION = {
    "timm": "vit_tiny_patch16_224",
    "kwargs": {"img_size": 32, **SIZES},
    "normalisation": "half",
    "label": "tiny",
}


def vit(seed=0):
    return build_vit("vit_tiny_patch16_224", 32, seed=seed, **SIZES)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_encoder_that_describes_itself_is_read_back(tmp_path, dtype):
    model = vit(seed=1)
    file = tmp_path / "new" / "encoder.safetensors"
    write_encoder(file, model, DESCRIPTION, dtype)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert read_description(file) == DESCRIPTION
    assert {str(tensor.dtype) for tensor in load_file(file).values()} == {f"torch.{dtype}"}
    with safe_open(file, framework="pt") as opened:
        assert json.loads(opened.metadata()[METADATA_KEY]) == DESCRIPTION
    loaded = vit()
    load_weights(loaded, file)
    assert torch.equal(loaded.norm.weight, model.norm.weight)
    assert (state_sha256(loaded) == state_sha256(model)) == (dtype == "float32")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    file = tmp_path / "encoder.safetensors"
    write_encoder(file, vit(), DESCRIPTION)
    before = file.read_bytes()

    with (
        files_of_at_most(100),
        pytest.raises(NotWrittenError, match=r"cannot be written .*too"),
    ):
        write_encoder(file, vit(seed=1), DESCRIPTION)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotWrittenError, match="cannot be written"):
        write_encoder(tmp_path / "file" / "encoder.safetensors", vit(), DESCRIPTION)


def test_the_same_encoder_is_written_to_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_encoder(tmp_path / name, vit(), DESCRIPTION)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def described(**changes):
    return {METADATA_KEY: json.dumps(DESCRIPTION | changes)}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "does not describe its network: name a timm model"),
        ({"format": "pt"}, "does not describe its network: name a timm model"),
        ({METADATA_KEY: "{"}, "describes its network incompletely"),
        ({METADATA_KEY: "[]"}, "describes its network incompletely"),
        ({METADATA_KEY: '{"timm": "vit_tiny_patch16_224"}'}, "incompletely: 'normalisation'"),
        (described(timm=3), "something else than a ViT and its sizes"),
        (described(kwargs=[]), "something else than a ViT and its sizes"),
        (described(kwargs={"depth": [1]}), "something else than a ViT and its sizes"),
        # What timm's builder would fetch or read from elsewhere.
        (described(kwargs={"pretrained": True}), "something else than a ViT and its sizes"),
        (described(kwargs={"checkpoint_path": "x.pth"}), "something else than a ViT and its sizes"),
        (described(kwargs={"device": "meta"}), "something else than a ViT and its sizes"),
    ],
)
def test_a_file_that_does_not_describe_a_vit_is_refused(tmp_path, metadata, message):
    save_file({"x": torch.zeros(1)}, tmp_path / "e.safetensors", metadata)
    with pytest.raises(PrepError, match=message):
        read_description(tmp_path / "e.safetensors")


def test_a_missing_or_damaged_encoder_is_refused(tmp_path):
    with pytest.raises(PrepError, match="There is no encoder at"):
        read_description(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    with pytest.raises(PrepError, match="is no safetensors file"):
        read_description(tmp_path / "bad.safetensors")
