"""Images that are not plain 8-bit RGB or gray: what becomes of them, and that it is said."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_prep import PrepError
from data_prep.images.check import ReadOptions, check_files
from data_prep.images.decode import check_image, decode_image
from data_prep.images.reading import Reading, Trait, unusual_choices


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(path, color_type, values):
    """Write one row of pixels with 16 bits a channel, which PIL cannot write in color."""
    header = struct.pack(">IIBBBBB", len(values), 1, 16, color_type, 0, 0, 0)
    row = b"\0" + np.array(values, ">u2").tobytes()
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def said(paths, **choices):
    """Check files and return the sentences on them."""
    options = ReadOptions(workers=0, reading=Reading(**choices))
    return [each.sentence() for each in check_files(paths, "train", options)[2].unusual]


def gray16(path, values):
    Image.fromarray(np.array([values], np.uint16)).save(path)
    return path


def test_plain_images_are_not_worth_a_word(tmp_path):
    for name, mode in (("a.png", "L"), ("b.jpg", "RGB"), ("c.webp", "RGB")):
        Image.new(mode, (3, 2)).save(tmp_path / name)
    assert said(sorted(tmp_path.iterdir())) == []


def test_12_bit_values_in_16_bits_are_told_of_and_read_with_bit_depth(tmp_path):
    """4095 of 65535 is 15 of 255: nearly black. Of 12 bits it is 255, and 2048 >> 4 = 128."""
    paths = [gray16(tmp_path / "a.png", [0, 1000]), gray16(tmp_path / "b.png", [2048, 4095])]
    assert said(paths) == [
        "2 train images with 16-bit gray values, at most 4095: the upper 8 of 16 bits are taken, "
        f"such as {paths[0]} (--bit-depth 12 if they use 12 bits)."
    ]
    assert decode_image(paths[1], "b").ravel().tolist() == [8, 15]
    assert decode_image(paths[1], "b", Reading(bit_depth=12)).ravel().tolist() == [128, 255]
    assert said(paths, bit_depth=12) == [
        f"2 train images with 16-bit gray values: the upper 8 of 12 bits, such as {paths[0]}."
    ]


def test_values_beyond_the_bit_depth_are_refused_by_check_and_decoding(tmp_path):
    path = gray16(tmp_path / "a.png", [4096])
    for read in (check_image, decode_image):
        with pytest.raises(PrepError, match=r"holds the value 4096, which 12 bits cannot hold"):
            read(path, path, Reading(bit_depth=12))
    assert decode_image(path, path, Reading(bit_depth=13)).item() == 128
    assert said([gray16(path, [65535])])[0].endswith(f"are taken, such as {path}.")


def test_a_tiff_that_states_12_bits_is_read_by_them(tmp_path):
    """Two values of 12 bits fill three bytes: 0x800 and 0xFFF are 2048 and 4095."""
    path = tmp_path / "a.tif"
    entries = [
        (256, 3, 2), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 122),
        (277, 3, 1), (278, 3, 1), (279, 4, 3),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + table + bytes(4)
    path.write_bytes(head.ljust(122, b"\0") + bytes([0x80, 0x0F, 0xFF]))
    assert decode_image(path, path).ravel().tolist() == [128, 255]
    assert check_image(path, path).traits == Trait.STATED_DEPTH
    assert "12-bit gray values: the upper 8 bits are taken" in said([path])[0]


def test_16_bit_colors_are_told_of_and_cannot_be_read_by_another_depth(tmp_path):
    path = deep_png(tmp_path / "a.png", 2, [[0x0FFF, 0x0100, 0], [0, 0, 0]])
    assert decode_image(path, path)[0].tolist() == [[15, 1, 0], [0, 0, 0]]
    assert check_image(path, path) == (2 * 3 * 2, Trait.DEEP_COLOR, 15)
    assert "the upper 8 bits, at most 15; too dark? store them with 8 bits" in said([path])[0]
    for read in (check_image, decode_image):
        with pytest.raises(PrepError, match="colors of 16 bits, of which only the upper 8 can be"):
            read(path, path, Reading(bit_depth=12))
    assert check_image(deep_png(path, 6, [[1, 2, 3, 4]]), path).traits == (
        Trait.DEEP_COLOR | Trait.ALPHA
    )


def test_a_fourth_band_tagged_as_alpha_is_told_of_and_can_be_ignored(tmp_path):
    """Near infrared of 26 of 255 taken for alpha: (100, 50, 0) over white is nearly white."""
    bands = np.array([[[100, 50, 0, 26]]], np.uint8)
    path = tmp_path / "a.tif"
    Image.fromarray(bands).save(path)
    assert decode_image(path, path).min() > 220
    assert said([path]) == [
        "1 train image with an alpha channel or a transparent color: shown over white, such as "
        f"{path} (--alpha ignore takes their colors alone)."
    ]
    assert decode_image(path, path, Reading(alpha="ignore")).ravel().tolist() == [100, 50, 0]
    assert "ignored, such as" in said([path], alpha="ignore")[0]


def test_alpha_is_ignored_in_gray_palettes_and_premultiplied_colors(tmp_path):
    ignore = Reading(alpha="ignore")
    Image.new("LA", (1, 1), (9, 0)).save(tmp_path / "gray.png")
    assert decode_image(tmp_path / "gray.png", "g", ignore).ravel().tolist() == [9]
    palette = Image.new("P", (1, 1))
    palette.putpalette([200, 100, 50])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert decode_image(tmp_path / "palette.png", "p", ignore).ravel().tolist() == [200, 100, 50]
    traits = check_image(tmp_path / "palette.png", "p").traits
    assert traits == Trait.PALETTE | Trait.ALPHA


@pytest.mark.parametrize(("mode", "trait"), [("1", Trait.ONE_BIT), ("CMYK", Trait.COLOR_MODEL)])
def test_one_bit_and_other_color_models_are_told_of(tmp_path, mode, trait):
    path = tmp_path / "a.tif"
    Image.new(mode, (2, 2)).save(path)
    assert check_image(path, path).traits == trait
    assert len(said([path, path])) == 1
    assert said([path, path])[0].startswith("2 train images with ")


@pytest.mark.parametrize("extension", ["gif", "png", "webp", "tif"])
def test_of_several_pictures_the_first_is_taken_and_that_is_said(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert decode_image(path, path)[0, 0].tolist() == [255, 0, 0]
    assert check_image(path, path).traits & Trait.SEVERAL
    assert any("several pictures in one file: the first is taken" in each for each in said([path]))
    frames[0].save(path)
    assert not check_image(path, path).traits & Trait.SEVERAL


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_an_orientation_is_told_of_and_followed_on_demand(tmp_path, extension):
    """Orientation 6: the stored left column is the upright top row, from right to left."""
    stored = Image.new("L", (3, 2))
    stored.putdata([10, 20, 30, 200, 210, 220])
    exif = Image.Exif()
    exif[0x112] = 6
    path = tmp_path / f"a.{extension}"
    stored.save(path, exif=exif, lossless=True, quality=100)
    assert decode_image(path, path).shape[:2] == (2, 3)
    assert "read as stored, not turned" in said([path])[0]
    upright = decode_image(path, path, Reading(orientation="exif"))
    assert upright.shape[:2] == (3, 2)
    assert np.abs(upright[0, :, 0].astype(int) - [200, 10]).max() < 6
    assert "turned as it says" in said([path], orientation="exif")[0]


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_is_turned_by_its_reader_and_that_is_said(tmp_path, mode, compression):
    """By 90 degrees to the right: the stored left column is the top row, from right to left."""
    exif = Image.Exif()
    exif[0x112] = 6
    stored = Image.fromarray(np.arange(0, 240, 40, np.uint8).reshape(2, 3)).convert(mode)
    turned, plain = tmp_path / "a.tif", tmp_path / "b.tif"
    stored.save(turned, exif=exif, compression=compression)
    stored.save(plain, compression=compression)
    for orientation in ("stored", "exif"):
        reading = Reading(orientation=orientation)
        pixels = decode_image(turned, turned, reading)
        assert np.array_equal(pixels, np.rot90(decode_image(plain, plain), -1))
        assert check_image(turned, turned, reading).traits & Trait.TURNED


def test_heic_is_read_or_the_missing_package_is_named(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.heic"
    picture = pillow_heif.from_pillow(Image.new("RGB", (64, 64), (200, 100, 50)))
    picture.save(path, quality=90)
    assert np.abs(decode_image(path, path).mean((0, 1)) - [200, 100, 50]).max() < 4
    monkeypatch.setattr("PIL.Image.open", _no_heic)
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(PrepError, match="is a HEIC image, which needs pillow-heif: pip install"):
        decode_image(path, path)


def _no_heic(file):
    from PIL import UnidentifiedImageError

    raise UnidentifiedImageError


def test_a_pointer_of_git_lfs_is_called_one(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    with pytest.raises(PrepError, match=r"it is a pointer of git-lfs, .* git lfs pull fetches"):
        decode_image(path, path)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"bit_depth": 7}, "--bit-depth must be 8 to 16, not 7"),
        ({"alpha": "black"}, "--alpha must be white or ignore, not 'black'"),
        ({"orientation": "up"}, "--orientation must be stored or exif, not 'up'"),
    ],
)
def test_unknown_choices_are_refused(choice, message):
    with pytest.raises(PrepError, match=message):
        Reading(**choice)


def test_only_unusual_choices_are_part_of_a_plan():
    assert unusual_choices(Reading()) == {}
    assert unusual_choices(Reading(12, orientation="exif")) == {
        "bit-depth": 12,
        "orientation": "exif",
    }
