import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep import PrepError
from data_prep.sources.open import read_source, read_train_and_test

ROWS = [
    {"path": "a/0.png", "label": "cat", "split": "train", "client": "ann"},
    {"path": "a/1.png", "label": "dog", "split": "test", "client": "bob"},
    {"path": "b/2.png", "label": "dog", "split": "train", "client": "bob"},
    {"path": "b/3.png", "label": "cat", "split": "test", "client": "ann"},
]


def write(path, rows, columns=("path", "label", "split", "client")):
    """Write a table, and at each path a picture of 3 x 2 gray pixels of the value of its row."""
    for value, row in enumerate(rows):
        if row["path"]:
            (path.parent / row["path"]).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (3, 2), value).save(path.parent / row["path"])
    if path.suffix == ".parquet":
        pq.write_table(pa.table({c: [row[c] for row in rows] for c in columns}), path)
        return path
    with path.open("w", newline="", encoding="utf-8-sig") as opened:
        writer = csv.DictWriter(opened, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["birds.csv", "birds.parquet"])
def test_a_table_gives_images_labels_splits_and_owners(tmp_path, name):
    path = write(tmp_path / name, ROWS)
    train, test = read_train_and_test(path, None, 0.5, seed=0)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1], [1, 0])
    assert (train.image_ids.tolist(), test.image_ids.tolist()) == ([0, 2], [1, 3])
    assert (train.owners.tolist(), test.owners.tolist()) == (["ann", "bob"], ["bob", "ann"])
    assert train.class_names == test.class_names == ("cat", "dog")
    assert (train.source, train.split, test.split) == ("birds", "train", "test")
    assert train.native_bytes == 2 * 6
    assert train.file_bytes[1] == (tmp_path / "b" / "2.png").stat().st_size
    assert test.take(np.array([0, 1])).native_pixels()[:, 0, 0, 0].tolist() == [1, 3]


def test_without_a_split_column_a_share_is_held_out_and_owners_follow(tmp_path):
    rows = [{"path": f"{k}.png", "label": k % 2, "client": f"c{k}"} for k in range(10)]
    path = write(tmp_path / "t.parquet", rows, ("path", "label", "client"))
    train, test = read_train_and_test(path, None, 0.2, seed=1)
    assert np.bincount(test.labels).tolist() == [1, 1]
    assert test.owners.tolist() == [f"c{i}" for i in test.image_ids]
    assert sorted([*train.image_ids, *test.image_ids]) == list(range(10))
    assert read_source(path).owners is not None
    assert len(read_source(path, "test")) == 10


def test_numbers_as_labels_keep_their_order(tmp_path):
    rows = [{"path": f"{k}.png", "label": label} for k, label in enumerate((10, 9, 2))]
    data = read_source(write(tmp_path / "t.csv", rows, ("path", "label")))
    assert data.class_names == ("2", "9", "10")
    assert data.labels.tolist() == [2, 1, 0]
    assert data.owners is None


def test_a_validation_split_stands_in_for_a_test_split(tmp_path):
    rows = [row | {"split": row["split"].replace("test", "val")} for row in ROWS]
    assert len(read_source(write(tmp_path / "t.csv", rows), "test")) == 2


def test_splits_labels_and_owners_are_read_without_capitals_and_spaces_around_them(tmp_path):
    """'cat' and 'cat ' are one class, ' Test ' is test; a validation row beside a test row is out.

    Row 0 is ann's cat, row 2 bob's dog, both for training.
    """
    split = {"train": "Train", "test": " Test "}
    rows = [
        {name: f"{text} " if name in ("label", "client") else text for name, text in row.items()}
        | {"split": split[row["split"]]}
        for row in ROWS
    ]
    rows += [ROWS[0], ROWS[2], ROWS[1] | {"split": "VAL"}]
    train, test = read_train_and_test(write(tmp_path / "t.csv", rows), None, 0.2, seed=0)
    assert train.class_names == ("cat", "dog")
    assert (train.image_ids.tolist(), test.image_ids.tolist()) == ([0, 2, 4, 5], [1, 3])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 0, 1], [1, 0])
    assert train.owners.tolist() == ["ann", "bob", "ann", "bob"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("train", "holdout"), "holdout, train"),
        (("holdout", "holdout"), "holdout"),
        (("test", "val"), "test, val"),
        (("train", "test", "tset"), "test, train, tset"),
        (("train", "0", *(f"fold{k}" for k in range(30))), r"0, fold0, .* \.\.\."),
    ],
)
def test_a_split_column_that_would_not_be_followed_is_refused(tmp_path, words, shown):
    """Dealt at random or dropped, its rows would be trained on that the user held out."""
    rows = [ROWS[0] | {"split": word} for word in words]
    path = write(tmp_path / "t.csv", rows)
    with pytest.raises(PrepError, match=f"must hold train and one of .* it holds {shown}: correct"):
        read_train_and_test(path, None, 0.2, seed=0)
    with pytest.raises(PrepError, match="column split"):
        read_source(path, "test")


@pytest.mark.parametrize("word", ["train", "Test", "val"])
def test_a_table_of_one_split_is_one_set(tmp_path, word):
    """As the tables of two published splits are, one behind the other or with --test."""
    path = write(tmp_path / "t.csv", [row | {"split": word} for row in ROWS])
    train, test = read_train_and_test(path, None, 0.5, seed=0)
    assert test is not None
    assert len(train) + len(test) == len(ROWS)
    assert len(read_source(path, "test")) == len(ROWS)


def test_a_class_in_one_split_only_is_named_unless_a_schema_is_given(tmp_path):
    path = write(tmp_path / "t.csv", ROWS[:3])
    with pytest.raises(PrepError, match=r"'cat' is in the split train of .* not in the split test"):
        read_source(path)
    train, test = read_train_and_test(path, None, 0.2, 0, classes=("dog", "cat"))
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0], [0])


def test_a_damaged_file_is_skipped_without_moving_ids(tmp_path):
    path = write(tmp_path / "t.csv", ROWS)
    (tmp_path / "a" / "0.png").write_bytes(b"damaged")
    with pytest.raises(PrepError, match=r"0\.png cannot be read .* --on-error skip"):
        read_source(path)
    data = read_source(path, on_error="skip")
    assert (data.image_ids.tolist(), data.owners.tolist()) == ([2], ["bob"])
    (tmp_path / "b" / "2.png").unlink()
    with pytest.raises(PrepError, match="None of 2 train images can be read"):
        read_source(path, on_error="skip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column 'path'"),
        ("file,label\na.png,cat\n", "lacks the column 'path': it has file, label; name"),
        ("path,label\n", "lists no images"),
        ("path,label\na.png\n", "row 1 has 1 of 2 fields"),
        ("path,label\na.png,cat\na.png,\n", "has no label in row 2: fill it in"),
        ("path,label\na.png,cat\na.png, \n", "has no label in row 2: fill it in"),
        ("path,label,split\na.png,cat, \n", "has no split in row 1"),
        ("path,label,client\na.png,cat,\n", "has no client in row 1"),
        (b"path,label\n\xff\xfe,a\n", "cannot be read as a table"),
    ],
)
def test_tables_of_another_form_are_refused(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PrepError, match=message):
        read_source(path)


def test_damaged_and_odd_parquet_files_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(PrepError, match="cannot be read as a table"):
        read_source(path)
    path.write_bytes(b"PAR1 not parquet PAR1")
    with pytest.raises(PrepError, match="cannot be read as a table"):
        read_source(path)
    pq.write_table(pa.table({"path": ["a.png"], "label": [0.5]}), path)
    with pytest.raises(PrepError, match=r"label must hold texts or whole numbers, not 0\.5"):
        read_source(path)
    pq.write_table(pa.table({"path": ["a.png"], "label": pa.array([None], pa.string())}), path)
    with pytest.raises(PrepError, match="has no label in row 1"):
        read_source(path)
    pq.write_table(pa.table({"path": ["a.png"], "class": ["b"]}), path)
    with pytest.raises(PrepError, match="lacks the column 'label': it has path, class"):
        read_source(path)


BYTES = {
    "pandas": pa.binary(),
    "polars": pa.large_binary(),
    "polars, views": pa.binary_view(),
    "pandas, struct": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "polars, struct": pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())]),
}


def png(value, mode="L"):
    file = io.BytesIO()
    Image.new(mode, (3, 2), value).save(file, "PNG")
    return file.getvalue()


def write_bytes(file, kind, count=4, first=0, **columns):
    """Write a Parquet file whose images are gray of 0, 1, 2 and so on, of the classes a and b."""
    contents = [png(first + value) for value in range(count)]
    if pa.types.is_struct(kind):
        contents = [{"bytes": content, "path": f"{k}.png"} for k, content in enumerate(contents)]
    labels = {"label": pa.array([f"{'ab'[k % 2]}" for k in range(count)], pa.large_string())}
    pq.write_table(pa.table({"image": pa.array(contents, kind), **labels, **columns}), file)
    return file


def values(data):
    return [int(pixels[0, 0, 0]) for pixels in data.images]


@pytest.mark.parametrize("kind", BYTES.values(), ids=BYTES.keys())
def test_parquet_files_with_image_bytes_are_read_as_they_are_written_elsewhere(tmp_path, kind):
    split, client = ["train", "test"] * 3, ["x", "y", "x", "y", "z", "y"]
    path = write_bytes(tmp_path / "t.parquet", kind, 6, split=split, client=client)
    train, test = read_train_and_test(path, None, 0.5, seed=0, classes=("a", "b"))
    assert (values(train), values(test)) == ([0, 2, 4], [1, 3, 5])
    assert (train.image_ids.tolist(), test.image_ids.tolist()) == ([0, 2, 4], [1, 3, 5])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 0], [1, 1, 1])
    assert train.owners.tolist() == ["x", "x", "z"]
    assert train.file_bytes.tolist() == [len(png(value)) for value in (0, 2, 4)]


def test_a_folder_of_parquet_files_is_one_table_as_spark_writes_it(tmp_path):
    folder = tmp_path / "birds.parquet"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    write_bytes(folder / "part-00001.snappy.parquet", pa.binary(), first=4)
    write_bytes(folder / "part-00000.snappy.parquet", pa.binary())
    data = read_source(folder)
    assert (values(data), data.source) == (list(range(8)), "birds")
    assert data.image_ids.tolist() == list(range(8))
    pq.write_table(pa.table({"x": [1]}), folder / "part-00002.parquet")
    with pytest.raises(PrepError, match="have different columns"):
        read_source(folder)


def test_paths_beside_bytes_count_only_where_they_lead_somewhere(tmp_path):
    """Spark's binaryFile has paths of the machine that it ran on."""
    far = [f"hdfs://far/{k}.png" for k in range(4)]
    path = write_bytes(tmp_path / "far.parquet", pa.binary(), path=far)
    assert values(read_source(path)) == [0, 1, 2, 3]
    for k in range(4):
        (tmp_path / f"{k}.png").write_bytes(png(9))
    near = write_bytes(tmp_path / "near.parquet", pa.binary(), path=[f"{k}.png" for k in range(4)])
    assert values(read_source(near)) == [9] * 4


def test_columns_of_other_names_are_given_as_the_hints_say(tmp_path):
    path = tmp_path / "t.parquet"
    two = {"one": [png(1)], "two": [png(2)], "kind": ["a"]}
    pq.write_table(pa.table(two), path)
    with pytest.raises(PrepError, match=r"several columns of images: choose one of one, two with"):
        read_source(path)
    with pytest.raises(PrepError, match=r"lacks the column 'label': .* with \?label=COLUMN"):
        read_source(f"{path}?image=two")
    assert values(read_source(f"{path}?image=two&label=kind")) == [2]
    with pytest.raises(PrepError, match=r"has no column 'none' for .image="):
        read_source(f"{path}?image=none")
    with pytest.raises(PrepError, match="knows no option 'color': use image, label, split, client"):
        read_source(f"{path}?color=red")
    plain = tmp_path / "t.csv"
    plain.write_text("file,kind\n0.png,a\n")
    with pytest.raises(PrepError, match=r"lacks the column 'path': .* with \?image=COLUMN"):
        read_source(plain)
    (tmp_path / "0.png").write_bytes(png(5))
    assert values(read_source(f"{plain}?image=file&label=kind")) == [5]


def test_damaged_bytes_are_named_by_their_row_and_unusual_ones_counted(tmp_path):
    contents = [png(1), b"damaged", png((1, 2, 3, 4), "RGBA")]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": contents, "label": ["a", "b", "a"]}), path)
    with pytest.raises(PrepError, match=r"Image 1 of t\.parquet cannot be read as an image"):
        read_source(path)
    data = read_source(path, on_error="skip")
    assert data.image_ids.tolist() == [0, 2]
    assert [each.example for each in data.unusual] == ["image 2 of t.parquet"]


def test_rows_of_a_split_that_is_not_read_are_counted(tmp_path):
    words = ["train", "test", "val", "val"]
    rows = [{"path": f"{k}.png", "label": "a", "split": word} for k, word in enumerate(words)]
    data = read_source(write(tmp_path / "t.csv", rows, ("path", "label", "split")))
    (sentence,) = data.left_out
    assert "The split val of" in sentence
    assert "is left out with its 2 images: only train and test are read." in sentence


def test_a_table_that_is_a_pointer_of_git_lfs_is_called_one(tmp_path):
    for name in ("t.parquet", "t.csv"):
        path = tmp_path / name
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        with pytest.raises(PrepError, match="it is a pointer of git-lfs"):
            read_source(path)
