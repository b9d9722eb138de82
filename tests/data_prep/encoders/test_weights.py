import hashlib
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from data_prep import PrepError
from data_prep.encoders.timm import create
from data_prep.encoders.vit import build_vit
from data_prep.encoders.weights import fit_weights, load_weights, read_tensors, state_sha256

SIZES = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


def vit(size=32, seed=0, **options):
    return build_vit("vit_tiny_patch16_224", size, seed=seed, **SIZES, **options)


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def zeros(state):
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def same(first, second):
    return state_sha256(first) == state_sha256(second)


STYLES = {
    "timm": lambda state: state,
    "model.": lambda state: prefixed(state, "model."),
    "module.": lambda state: prefixed(state, "module."),
    "encoder.": lambda state: prefixed(state, "encoder."),
    "module.encoder. beside a decoder": lambda state: (
        prefixed(state, "module.encoder.") | {"module.decoder.weight": torch.zeros(2)}
    ),
    "in model": lambda state: {"model": state, "epoch": 3},
    "in state_dict": lambda state: {"state_dict": prefixed(state, "model."), "epoch": 3},
    "backbone. beside a head": lambda state: (
        prefixed(state, "backbone.") | {"head.weight": torch.zeros(3, 3)}
    ),
    "compiled in parallel": lambda state: prefixed(state, "_orig_mod.module."),
    "in any module": lambda state: prefixed(state, "visual.trunk."),
    "a teacher beside its student": lambda state: {
        "student": prefixed(zeros(state), "module.backbone."),
        "teacher": prefixed(state, "backbone.") | {"head.last.weight": torch.zeros(2)},
        "epoch": 3,
    },
    "a teacher and its student together": lambda state: {
        "model": prefixed(zeros(state), "student.backbone.") | prefixed(state, "teacher.backbone.")
    },
    "averaged weights as timm trains them": lambda state: {
        "state_dict": zeros(state),
        "state_dict_ema": state,
        "arch": "vit",
    },
    "I-JEPA": lambda state: {
        "encoder": prefixed(zeros(state), "module."),
        "target_encoder": prefixed(state, "module."),
        "epoch": 3,
    },
    "with a head": lambda state: state | {"head.weight": torch.zeros(10, 24)},
    "MAE": lambda state: {
        "model": state
        | {
            "mask_token": torch.zeros(1, 1, 16),
            "decoder_pos_embed": torch.zeros(1, 17, 16),
            "decoder_embed.weight": torch.zeros(16, 24),
            "decoder_blocks.0.norm1.weight": torch.zeros(16),
            "decoder_norm.weight": torch.zeros(16),
            "decoder_pred.weight": torch.zeros(192, 16),
        }
    },
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_the_published_ways_of_naming_tensors_are_read(tmp_path, style, suffix):
    trained, model = vit(seed=1), vit()
    file = tmp_path / f"vit{suffix}"
    torch.save(STYLES[style](trained.state_dict()), file)
    assert not same(model, trained)
    assert load_weights(model, file) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert same(model, trained)


def test_a_checkpoint_of_another_image_size_is_resampled_and_hashed(tmp_path):
    trained = vit(48, seed=1)
    state = {name: tensor.half() for name, tensor in trained.state_dict().items()}
    file = tmp_path / "vit.safetensors"
    save_file(state | {"head.weight": torch.zeros(10, 24)}, file)
    model = vit(32)
    assert load_weights(model, file) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert model.pos_embed.shape == (1, 1 + 16, 24)
    assert model.pos_embed.dtype == torch.float32
    # The class token's position is not part of the grid: it stays as it was.
    assert torch.equal(model.pos_embed[:, 0], trained.pos_embed[:, 0].half().float())
    loaded = model.blocks[0].attn.qkv.weight
    assert torch.equal(loaded, trained.blocks[0].attn.qkv.weight.half().float())


@pytest.mark.parametrize(("there", "here"), [("fc_norm", "norm"), ("norm", "fc_norm")])
def test_the_final_norm_moves_to_where_the_checkpoint_has_it(there, here):
    """MAE's fine-tuned models have ``fc_norm`` after the mean, its pre-trained ones ``norm``."""
    pools = {"norm": "token", "fc_norm": "avg"}
    trained, model = vit(global_pool=pools[there]), vit(global_pool=pools[here])
    torch.nn.init.constant_(getattr(trained, there).weight, 7)
    fit_weights(model, trained.state_dict(), "it")
    assert getattr(model, there).weight.tolist() == [7] * 24
    assert isinstance(getattr(model, here), torch.nn.Identity)


def test_a_cnns_classifier_is_left_out_and_an_old_batchnorm_is_read(tmp_path):
    trained, model = (
        create("test_resnet", 1, global_pool="avg"),
        create("test_resnet", 0, global_pool="avg"),
    )
    state = {k: v for k, v in trained.state_dict().items() if "num_batches_tracked" not in k}
    assert len(state) < len(trained.state_dict())
    torch.save(state | {"fc.weight": torch.zeros(10, 96)}, tmp_path / "cnn.pth")
    load_weights(model, tmp_path / "cnn.pth")
    assert same(model, trained)


class Hostile:
    """Makes a folder when unpickled: a pickle may call anything."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("save", [torch.save, lambda x, f: f.write_bytes(pickle.dumps(x))])
def test_a_pickle_that_would_run_code_is_refused_before_it_runs(tmp_path, save, suffix):
    made, file = tmp_path / "made", tmp_path / f"hostile{suffix}"
    save({"model": vit().state_dict(), "args": Hostile(made)}, file)
    with pytest.raises(PrepError, match=r"holds Python objects, which may run code .* tensors"):
        load_weights(vit(), file)
    assert not made.exists()
    # The file is what it claims to be: read as a pickle it does make the folder.
    torch.load(file, weights_only=False) if save is torch.save else pickle.loads(file.read_bytes())
    assert made.exists()


def without(name):
    return {k: v for k, v in vit().state_dict().items() if k != name}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (without("blocks.1.mlp.fc1.bias"), r"it lacks blocks.1.mlp.fc1.bias\.$"),
        (vit().state_dict() | {"blocks.2.norm1.bias": torch.zeros(24)}, "also has blocks.2.norm1"),
        (
            build_vit("vit_tiny_patch16_224", 32, **(SIZES | {"embed_dim": 48})).state_dict(),
            r"its cls_token is \[1, 1, 48\], not \[1, 1, 24\]",
        ),
        (create("test_resnet", 0, global_pool="avg").state_dict(), "it lacks cls_token"),
        ({"pos_embed": torch.zeros(3)}, "vit_tiny_patch16_224: "),
    ],
)
def test_another_architecture_is_refused_with_the_first_mismatch(state, message):
    model = vit(seed=1)
    before = state_sha256(model)
    with pytest.raises(PrepError, match="FILE is of another architecture than vit_tiny") as caught:
        fit_weights(model, state, "FILE")
    caught.match(message)
    assert "\n" not in str(caught.value)
    assert state_sha256(model) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.safetensors", None, "There is no .safetensors checkpoint at"),
        ("none.pth", None, "There is no .safetensors checkpoint at"),
        ("text.npz", b"", "There is no .safetensors checkpoint at"),
        ("bad.safetensors", b"bad", "damaged or no checkpoint"),
        ("empty.pth", b"", "damaged or no checkpoint"),
        ("zip.pt", b"PK\x03\x04 and no more", "damaged or no checkpoint"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PrepError, match=message) as caught:
        read_tensors(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{}, [torch.zeros(1)], {"model": {"epoch": 3}}])
def test_a_checkpoint_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(PrepError, match="holds no tensors under names"):
        read_tensors(tmp_path / "odd.pth")


def test_a_name_that_ends_others_too_is_not_taken_for_the_prefix(tmp_path):
    """Of a ResNet, conv1.weight is the first name, and so end layer1.0.conv1.weight and others."""
    trained, model = (
        create("resnet10t", 1, global_pool="avg"),
        create("resnet10t", 0, global_pool="avg"),
    )
    file = tmp_path / "cnn.pth"
    torch.save({"state_dict": prefixed(trained.state_dict(), "net.")}, file)
    load_weights(model, file)
    assert same(model, trained)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_pointer_of_git_lfs_is_not_called_python_objects(tmp_path, suffix):
    file = tmp_path / f"vit{suffix}"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(PrepError, match="it is a pointer of git-lfs"):
        read_tensors(file)


def test_a_web_page_is_not_called_python_objects(tmp_path):
    (tmp_path / "vit.pth").write_text("<html>Not found</html>")
    with pytest.raises(PrepError, match=r"vit\.pth is no checkpoint: it begins with b'<h'"):
        read_tensors(tmp_path / "vit.pth")
