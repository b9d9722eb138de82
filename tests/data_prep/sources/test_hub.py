import io
import pickle

import datasets
import numpy as np
import pytest
from PIL import Image

from data_prep import PrepError
from data_prep.errors import cause_of
from data_prep.sources.open import left_out_tests, read_source, read_train_and_test


def picture(value, mode="L"):
    content = io.BytesIO()
    Image.new(mode, (3, 2), value).save(content, "PNG")
    return content.getvalue()


def build(values, labels, kind, **columns):
    """A data set of 3 x 2 gray pictures, one value each; ``kind`` is the feature of its labels."""
    content = {"image": [{"bytes": picture(v), "path": None} for v in values], "label": labels}
    features = {"image": datasets.Image(), "label": kind}
    features |= {name: datasets.Value("string") for name in columns}
    return datasets.Dataset.from_dict(content | columns, features=datasets.Features(features))


CATS = datasets.ClassLabel(names=["dog", "cat"])
TEXT, NUMBER = datasets.Value("string"), datasets.Value("int64")


@pytest.fixture
def saved(tmp_path):
    def save(**splits):
        datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "set"))
        return f"hf:{tmp_path / 'set'}"

    return save


def test_a_saved_data_set_gives_images_class_names_splits_and_owners(saved):
    source = saved(
        train=build([7, 8, 9], [0, 1, 0], CATS, client=["ann", "bob", "ann"]),
        validation=build([5], [0], CATS, client=["eve"]),
    )
    train, test = read_train_and_test(source, None, 0.2, seed=0)
    assert train.class_names == test.class_names == ("dog", "cat")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 0], [0])
    assert (train.owners.tolist(), test.owners.tolist()) == (["ann", "bob", "ann"], ["eve"])
    assert train.take(np.array([2, 0])).native_pixels()[:, 0, 0, 0].tolist() == [
        9,
        7,
    ]
    assert test.take(np.array([0])).native_pixels().tolist() == [[[[5]] * 3] * 2]
    assert (train.native_bytes, train.split, test.split) == (3 * 6, "train", "test")
    assert train.source == "hf:set"
    assert left_out_tests(source).endswith(f"the test images of {source}.")
    assert train.file_bytes.tolist() == [len(picture(v)) for v in (7, 8, 9)]
    # Decoding in other processes needs this.
    again = pickle.loads(pickle.dumps(train.images))
    assert next(iter(again[1:2]))[0, 0, 0] == 8


def test_without_a_test_split_a_share_is_held_out(saved):
    train, test = read_train_and_test(
        saved(train=build(range(10), [0, 1] * 5, CATS)), None, 0.2, seed=0
    )
    assert (len(train), np.bincount(test.labels).tolist()) == (8, [1, 1])


def test_a_folder_is_loaded_lazily_from_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name, value in (("cat", 3), ("dog", 4)):
        (tmp_path / "pets" / "train" / name).mkdir(parents=True)
        (tmp_path / "pets" / "train" / name / "0.png").write_bytes(picture(value))
    data = read_source(f"hf:{tmp_path / 'pets'}")
    assert data.class_names == ("cat", "dog")
    assert [pixels[0, 0, 0] for pixels in data.images] == [3, 4]
    (tmp_path / "pets" / "train" / "dog" / "0.png").unlink()
    with pytest.raises(PrepError, match=r"Image 1 of hf:.* is missing: there is no file"):
        list(data.images)


@pytest.mark.parametrize(
    ("kind", "train", "test", "names"),
    [(TEXT, ["b", "a"], ["a", "b"], ("a", "b")), (NUMBER, [10, 9], [9, 10], ("9", "10"))],
)
def test_undeclared_labels_are_the_distinct_values_of_both_splits(saved, kind, train, test, names):
    source = saved(train=build([1, 2], train, kind), test=build([3, 4], test, kind))
    data = read_source(source)
    assert (data.class_names, data.labels.tolist()) == (names, [1, 0])


def test_an_undeclared_class_in_one_split_only_is_named_unless_a_schema_is_given(saved):
    source = saved(train=build([1, 2], ["a", "b"], TEXT), test=build([3], ["a"], TEXT))
    with pytest.raises(
        PrepError, match=r"'b' is in the split train of hf:.* not in the split test"
    ):
        read_source(source)
    data = read_source(source, "test", classes=["b", "a"])
    assert data.labels.tolist() == [1]


def test_options_name_columns_and_splits(saved):
    both = build([1, 2], [0, 1], CATS, writer=["x", "y"]).add_column("fine", [0, 1])
    both = both.cast_column("fine", datasets.ClassLabel(names=["p", "q"]))
    source = saved(left=both, right=both)
    with pytest.raises(
        PrepError, match=r"several label columns: choose one of label, fine with \?label=COLUMN"
    ):
        read_source(source)
    asked = f"{source}?label=fine&client=writer&train=left&test=right"
    train, test = read_train_and_test(asked, None, 0.5, seed=0)
    assert (len(train), len(test), test.class_names) == (2, 2, ("p", "q"))
    assert test.owners.tolist() == ["x", "y"]
    for option, message in (
        ("label=none", "has no column 'none': it has image, label, writer, fine"),
        ("image=fine&label=fine", "column 'fine' of hf:.* holds neither images nor their paths"),
        ("train=middle", "has no split 'middle': it has left, right"),
        ("color=red", "knows no option 'color': use image, label, client, train, test"),
        ("label", r"options in '.*' cannot be read"),
    ):
        with pytest.raises(PrepError, match=message):
            read_source(f"{source}?{option}")


def test_damaged_and_unlabeled_images_are_named_or_skipped(saved):
    content = build([1, 2, 3], [0, 1, 0], CATS).cast_column("image", datasets.Image(decode=False))
    rows = content.to_list()
    rows[1]["image"]["bytes"] = b"damaged"
    damaged = datasets.Dataset.from_list(rows, features=content.features)
    source = saved(train=damaged.cast_column("image", datasets.Image()))
    with pytest.raises(PrepError, match=r"Image 1 of hf:.* cannot be read .* --on-error skip"):
        read_source(source)
    data = read_source(source, on_error="skip")
    assert (data.image_ids.tolist(), data.labels.tolist()) == ([0, 2], [0, 0])
    assert [pixels[0, 0, 0] for pixels in data.images] == [1, 3]


@pytest.mark.parametrize(
    ("labels", "kind"), [([0, -1], CATS), ([0, None], CATS), (["a", ""], TEXT)]
)
def test_an_image_without_a_label_is_refused(saved, labels, kind):
    with pytest.raises(PrepError, match=r"Image 1 of hf:.* has no label in its split train"):
        read_source(saved(train=build([1, 2], labels, kind)))


def test_columns_that_are_missing_are_named(saved):
    plain = datasets.Dataset.from_dict({"text": ["a"]})
    with pytest.raises(PrepError, match=r"has no image column: choose one of text with \?image="):
        read_source(saved(train=plain))


def test_a_data_set_that_cannot_be_had_is_one_sentence(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("Couldn't reach the hub\nwith a long trace")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        PrepError, match=r"'user/birds' cannot be loaded: Couldn't reach the hub; c"
    ):
        read_source("hf:user/birds")
    with pytest.raises(PrepError, match="lacks a name: write hf:NAME"):
        read_source("hf:")


def test_a_configuration_follows_the_name(monkeypatch):
    asked = []

    def load(name, config):
        asked.append((name, config))
        return datasets.DatasetDict(train=build([1], [0], CATS))

    monkeypatch.setattr(datasets, "load_dataset", load)
    read_source("hf:user/birds:small")
    read_source("hf:user/birds?label=label")
    assert asked == [("user/birds", "small"), ("user/birds", None)]


def test_bytes_and_structs_that_are_not_declared_as_images_are_images(saved, tmp_path):
    content = build([1, 2], [0, 1], CATS).cast_column("image", datasets.Image(decode=False))
    plain = datasets.Dataset.from_dict(
        {"image": [row["image"]["bytes"] for row in content], "label": ["a", "b"]}
    )
    struct = datasets.Dataset.from_dict({"image": content["image"][:], "label": ["a", "b"]})
    for data in (plain, struct):
        read = read_source(saved(train=data))
        assert [pixels[0, 0, 0] for pixels in read.images] == [1, 2]


def test_what_a_hint_offers_can_be_followed(saved, tmp_path):
    """A column of paths is offered where there is no column of images, and is then read."""
    Image.new("L", (2, 2), 7).save(tmp_path / "a.png")
    data = datasets.Dataset.from_dict({"file": [str(tmp_path / "a.png")], "kind": ["a"]})
    source = saved(train=data)
    with pytest.raises(PrepError, match=r"no image column: choose one of file, kind with"):
        read_source(source)
    with pytest.raises(PrepError, match=r"no label column: choose one of file, kind with"):
        read_source(f"{source}?image=file")
    read = read_source(f"{source}?image=file&label=kind")
    assert (next(iter(read.images)).item(0), read.class_names) == (7, ("a",))


def test_splits_that_are_not_read_are_counted(saved):
    part = build([1, 2], [0, 1], CATS)
    source = saved(train=part, validation=part, test=part)
    (sentence,) = read_source(source).left_out
    assert sentence.startswith("The split validation of hf:")
    assert "is left out with its 2 images" in sentence


def wrapped(text, inner):
    err = RuntimeError(text)
    err.__cause__ = inner
    return err


def test_a_cause_that_the_library_wraps_is_named_and_the_network_only_where_it_is_one():
    label = wrapped("An error occurred while generating", ValueError("Bad label 'x'\nat length"))
    assert cause_of(label) == "Bad label 'x'"
    reset = wrapped("No data found", ConnectionResetError(104, "Connection reset by peer"))
    assert cause_of(reset) == "No data found; check the network"
    assert cause_of(ValueError("No such name.")) == "No such name"
