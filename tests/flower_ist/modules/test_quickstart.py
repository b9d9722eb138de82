"""Flower's quickstart, adopted by a few lines, learns with its own SGD."""

import pytest
import torch

from benchmarks.quickstart.task import Net
from benchmarks.quickstart_pytorch import changed_lines, difference, run
from flower_ist.modules.derive import derive_axes
from tests.fakes import ROOT


def test_so_few_lines_change():
    assert changed_lines("server_app") == (2, 2)
    assert changed_lines("client_app") == (2, 2)  # of which one is the import


def test_the_guide_shows_these_lines():
    guide = (ROOT / "docs" / "your-own-model.md").read_text(encoding="utf-8")
    for app in ("server_app", "client_app"):
        for line in difference(app):
            if line[0] in "-+":
                assert line in guide, line


def test_one_of_four_slices_holds_a_third_of_the_weights():
    """fc1 is cut: 30 of 120 neurons, with 256 inputs, 84 outputs and a bias each."""
    axes = derive_axes(Net(), torch.zeros(2, 1, 28, 28))
    assert axes.widths == {"fc1": 120}
    whole = 156 + 2416 + 120 * 257 + 84 * 121 + 850
    assert axes.share({"fc1": 30}) == pytest.approx((whole - 90 * (256 + 1 + 84)) / whole)


@pytest.mark.long
def test_it_learns_as_fedavg_does_with_half_of_the_bytes():
    accuracy, size = run("ist", rounds=12, epochs=3, lr=0.05, seed=0)
    rival, rival_size = run("fedavg", rounds=12, epochs=3, lr=0.05, seed=0)
    assert accuracy >= rival - 0.02
    assert size <= 0.35 * rival_size


def test_it_learns():
    """Four rounds; at ten of a hundred a slice would have learned nothing."""
    accuracy, _ = run("ist", rounds=4, epochs=2, lr=0.05, seed=0)
    assert accuracy > 0.5
