"""Class counts of two clients: 3 + 1 images of classes a and b, and 0 + 4."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from data_prep.splits.plot import plot_split
from data_prep.splits.report import SplitReport, class_counts, to_json, to_table
from flower_ist.files import NotWrittenError

LABELS = np.array([0, 1, 0, 1, 1, 0, 1, 1])
PARTS = [np.array([0, 2, 3, 5]), np.array([1, 4, 6, 7])]


@pytest.fixture
def report():
    return SplitReport.of_parts(LABELS, ["[b]a$x", "b"], PARTS)


def lines(table, width=80):
    text = io.StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue().splitlines()


def test_counts_by_hand(report):
    assert class_counts(LABELS, PARTS, 3).tolist() == [[3, 1, 0], [0, 4, 0]]
    assert report.clients == ("client-0", "client-1")
    assert report.counts.tolist() == [[3, 1], [0, 4]]
    assert report.images.tolist() == [4, 4]


def test_skew_by_hand(report):
    """All images are 3/8 a and 5/8 b; 3/4 and 1/4, 0 and 1 are each 3/8 away from that.

    The entropy of 3/4 and 1/4 is ln 4 - 3/4 ln 3, so it is as mixed as 4 / 3^.75 classes.
    """
    np.testing.assert_allclose(report.distance, [3 / 8, 3 / 8])
    np.testing.assert_allclose(report.effective_classes, [4 / 3**0.75, 1])


def test_few_classes_have_a_column_each(report):
    shown = [line.split() for line in lines(to_table(report))]
    assert ["client", "images", "[b]a$x", "b", "distance"] in shown
    assert ["client-0", "4", "3", "1", "0.38"] in shown
    assert ["client-1", "4", "·", "4", "0.38"] in shown
    assert ["all", "8", "3", "5", "0.38"] in shown


@pytest.mark.parametrize("classes", [2, 45])
def test_owners_stand_beside_their_clients(classes):
    """A client of ann's holds 3 images of class a and 1 of class b; [bob] is no markup."""
    names = ["a", "b", *map(str, range(2, classes))]
    report = SplitReport.of_parts(LABELS, names, PARTS, ["ann", "[bob]"])
    shown = [line.split() for line in lines(to_table(report))]
    assert ["client-0", "ann", "4"] in [row[:3] for row in shown]
    assert ["client-1", "[bob]", "4"] in [row[:3] for row in shown]
    clients = json.loads(to_json(report))["clients"]
    assert {name: client["owner"] for name, client in clients.items()} == {
        "client-0": "ann",
        "client-1": "[bob]",
    }


@pytest.mark.parametrize("classes", [45, 3])
def test_many_classes_or_long_names_are_summed_up(classes):
    """Client 0 has 2 images of class 1 and 1 of class 2; client 1 has 1 of class 2."""
    names = [f"long_class_name_{k}" for k in range(classes)]
    report = SplitReport.of_parts(
        np.array([1, 1, 2, 2]), names, [np.array([0, 1, 2]), np.array([3])]
    )
    shown = lines(to_table(report))
    cells = [line.split() for line in shown]
    # 3 / 2^(2/3) is 1.89 classes; all are half and half, which 2/3 and 1/3 is 1/6 away from.
    assert ["client-0", "3", "2", "1.9", "66.7", "long_class_name_1", "0.17"] in cells
    assert ["client-1", "1", "1", "1.0", "100.0", "long_class_name_2", "0.50"] in cells
    assert ["all", "4", "2", "2.0", "50.0", "long_class_name_1", "0.25"] in cells
    assert max(len(line.rstrip()) for line in shown) <= 80


def test_json_holds_the_counts(report):
    content = json.loads(to_json(report))
    assert content["class_names"] == ["[b]a$x", "b"]
    assert content["clients"]["client-0"] == {
        "images": 4,
        "counts": [3, 1],
        "effective_classes": 1.7548,
        "distance": 0.375,
    }


@pytest.mark.parametrize(("clients", "classes"), [(1, 1), (2, 10), (40, 45)])
def test_the_picture_shows_something_at_any_size(tmp_path, clients, classes):
    names = ["$\\frac{ 漢字", *[f"class {k}" for k in range(1, classes)]]
    labels = np.arange(clients * classes) % classes
    parts = list(np.arange(len(labels)).reshape(clients, classes))
    report = SplitReport.of_parts(labels, names, parts)
    file = plot_split(report, tmp_path / "split.png")
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        assert picture.width <= 2000
        assert picture.height <= 2000
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
    assert list(tmp_path.iterdir()) == [file]


def test_the_picture_of_a_cell(tmp_path, report):
    """An absent class is white, the largest share is the darkest blue."""
    drawn = plot_split(report, tmp_path / "split.png")
    with Image.open(drawn) as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(1 << 20)}
    assert (8, 48, 107) in colors


def test_a_picture_that_cannot_be_written(tmp_path, report):
    (tmp_path / "split.png").mkdir()
    with pytest.raises(NotWrittenError, match=r"split\.png cannot be written"):
        plot_split(report, tmp_path / "split.png")
    assert [path.name for path in tmp_path.iterdir()] == ["split.png"]
    with pytest.raises(NotWrittenError, match="No such file or directory"):
        plot_split(report, tmp_path / "missing" / "split.png")
