"""The pictures of a comparison: plain numbers at the axes, and every point inside."""

from __future__ import annotations

from math import log10

import pytest
from matplotlib.figure import Figure

from flower_ist.compare.analyze import analyze
from flower_ist.compare.figures import PICTURES, draw_all
from flower_ist.compare.shards import token_bytes
from tests.fakes.comparisons import CENTRAL, LOGS, log
from tests.fakes.runs import PNG

# From 20 kB to 2 GB; and a run whose rounds are all within 3 to 4 MB.
WIDE = {
    "ridge": [log((0.6, 0.6), down=10_000, up=10_000)],
    "fedavg": [log((0.5, 0.5), (0.7, 0.7), down=500_000_000, up=500_000_000)],
}
NARROW = {"ist": [log((0.5, 0.5), down=1_500_000, up=1_600_000)]}


@pytest.mark.parametrize("name", ["accuracy-by-bytes.png", "bytes-per-round.png"])
@pytest.mark.parametrize("logs", [LOGS, WIDE, NARROW])
def test_bytes_are_plain_numbers_and_no_point_is_cut(name, logs):
    figure = Figure()
    axes = figure.add_subplot()
    PICTURES[name][1](axes, analyze(logs))
    figure.canvas.draw()
    low, high = axes.get_xlim()
    labels = axes.get_xticklabels(which="both")
    shown = [label.get_text() for label in labels if low <= label.get_position()[0] <= high]
    assert len([text for text in shown if text]) >= 2
    assert not [text for text in shown if text and not text.replace(".", "", 1).isdigit()]
    points = [x for line in axes.lines for x in line.get_xdata() if line.get_linestyle() != "--"]
    margins = [log10(x / low) / log10(high / low) for x in points if x > 0]
    assert all(0.02 < margin < 0.98 for margin in margins)


def test_a_comparison_without_a_federation_has_its_pictures_too():
    pictures = draw_all(analyze({"central": CENTRAL}))
    assert pictures.keys() == PICTURES.keys()
    assert all(png.startswith(PNG) for png in pictures.values())


@pytest.mark.parametrize("uploaded", [None, 524_000])
def test_what_uploading_the_tokens_takes_is_marked(uploaded):
    axes = Figure().add_subplot()
    PICTURES["accuracy-by-bytes.png"][1](axes, analyze(LOGS, uploaded=uploaded))
    marks = [line for line in axes.lines if line.get_label() == "all tokens in int8"]
    assert [line.get_xdata() for line in marks] == ([[0.524, 0.524]] if uploaded else [])


def test_all_tokens_of_the_demo_are_half_a_megabyte():
    """4,000 tokens of 128 numbers, each with a scale of two bytes and a label of one."""
    assert token_bytes("", 4) == 4000 * (128 + 2 + 1)
    assert token_bytes("", 4, per_client=True) == 1000 * (128 + 2 + 1)
