import io
import os
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data_prep import PrepError
from data_prep.images.decode import (
    ImageFiles,
    check_image,
    decode_image,
    is_image,
    look_at_file,
)
from data_prep.images.stored import StoredImages


def save(path, values, mode, **options):
    image = Image.new(mode, (len(values[0]), len(values)))
    image.putdata([value for row in values for value in row])
    image.save(path, **options)
    return path


def read_image(path):
    """Decode a file; its native bytes are those that the check pass measures."""
    return SimpleNamespace(
        pixels=decode_image(path, path), native_bytes=check_image(path, path).native_bytes
    )


def palette(path, **options):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 1, 2, 3])
    image.putdata([0, 1])
    image.save(path, **options)
    return path


def test_gray_keeps_one_channel_and_its_values(tmp_path):
    file = read_image(save(tmp_path / "a.png", [[0, 7, 255], [1, 2, 3]], "L"))
    assert file.pixels.tolist() == [[[0], [7], [255]], [[1], [2], [3]]]
    assert file.pixels.dtype == np.uint8
    assert file.native_bytes == 2 * 3 * 1


def test_rgb_keeps_three_channels(tmp_path):
    file = read_image(save(tmp_path / "a.bmp", [[(1, 2, 3)], [(4, 5, 6)]], "RGB"))
    assert file.pixels.tolist() == [[[1, 2, 3]], [[4, 5, 6]]]
    assert file.native_bytes == 2 * 1 * 3


def test_black_and_white_is_gray(tmp_path):
    file = read_image(save(tmp_path / "a.png", [[0, 255]], "1"))
    assert file.pixels.tolist() == [[[0], [255]]]
    assert file.native_bytes == 2


def test_a_palette_becomes_its_colors_and_counts_one_channel(tmp_path):
    file = read_image(palette(tmp_path / "a.png"))
    assert file.pixels.tolist() == [[[200, 100, 50], [1, 2, 3]]]
    assert file.native_bytes == 2


def test_a_palettes_transparent_color_becomes_white(tmp_path):
    for name in ("a.png", "a.gif"):
        file = read_image(palette(tmp_path / name, transparency=0))
        assert file.pixels.tolist() == [[[255, 255, 255], [1, 2, 3]]]


def test_alpha_is_shown_over_white(tmp_path):
    """Black at alpha 51 of 255 covers a fifth of the white: 255 * 4/5 = 204."""
    values = [[(0, 0, 0, 0), (0, 0, 0, 51), (9, 8, 7, 255)]]
    file = read_image(save(tmp_path / "a.png", values, "RGBA"))
    assert file.pixels.tolist() == [[[255] * 3, [204] * 3, [9, 8, 7]]]
    assert file.native_bytes == 3 * 4
    gray = read_image(save(tmp_path / "b.png", [[(0, 51), (9, 255)]], "LA"))
    assert gray.pixels.tolist() == [[[204] * 3, [9] * 3]]
    assert gray.native_bytes == 2 * 2


def test_16_bit_gray_keeps_its_upper_8_bits(tmp_path):
    """0x1234 becomes 0x12; cutting off at 255, as PIL's own conversion does, would give white."""
    Image.fromarray(np.array([[0x1234, 0xFFFF, 0x00FF]], np.uint16)).save(tmp_path / "a.png")
    file = read_image(tmp_path / "a.png")
    assert file.pixels.tolist() == [[[0x12], [0xFF], [0]]]
    assert file.native_bytes == 3 * 2


def test_cmyk_becomes_rgb_and_counts_four_channels(tmp_path):
    file = read_image(save(tmp_path / "a.tif", [[(0, 0, 0, 0), (0, 0, 0, 255)]], "CMYK"))
    assert file.pixels.tolist() == [[[255] * 3, [0] * 3]]
    assert file.native_bytes == 2 * 4


def noise_image(size=(40, 30)):
    values = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "gif", "tif", "bmp", "ppm"])
def test_truncated_files_of_any_format_are_one_sentence(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    noise_image().save(path)
    assert read_image(path).pixels.shape == (40, 30, 3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PrepError, match=rf"a\.{extension} cannot be read as an image: ") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "gif", "tif", "bmp", "ppm"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_check_measures_and_refuses_what_decoding_does(tmp_path, extension, progressive):
    path = tmp_path / f"a.{extension}"
    noise_image((90, 70)).save(path, **({"progressive": True} if progressive else {}))
    channels = {"gif": 1}.get(extension, 3)
    assert check_image(path, path).native_bytes == 90 * 70 * channels
    whole = path.read_bytes()
    for share in range(1, 10):
        path.write_bytes(whole[: len(whole) * share // 10])
        outcomes = []
        for function in (decode_image, check_image):
            try:
                function(path, path)
                outcomes.append("")
            except PrepError as err:
                outcomes.append(str(err))
        assert bool(outcomes[0]) == bool(outcomes[1])


def test_a_check_measures_every_mode_as_decoding_does(tmp_path):
    modes = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "P": 1, "I;16": 2}
    for mode, channels in modes.items():
        Image.new(mode, (7, 5)).save(tmp_path / "a.png")
        assert check_image(tmp_path / "a.png", "a").native_bytes == 7 * 5 * channels
    for mode in ("L", "RGB", "CMYK"):
        Image.new(mode, (70, 50)).save(tmp_path / "a.jpg")
        assert check_image(tmp_path / "a.jpg", "a").native_bytes == 70 * 50 * len(mode)
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(PrepError, match="a has pixels of mode F"):
        check_image(tmp_path / "a.tif", "a")


def test_a_look_at_a_file_measures_it_and_sums_up_all_of_it(tmp_path):
    """A PPM file of 600 x 600 x 3 bytes after a header of 15; both halves count."""
    path = tmp_path / "a.ppm"
    noise_image((600, 600)).save(path)
    content = bytearray(path.read_bytes())
    assert look_at_file(path) == (1_080_000, 0, 0, 1_080_015, zlib.crc32(content))
    content[-1] ^= 1
    path.write_bytes(content)
    assert look_at_file(path)[-1] == zlib.crc32(content)
    with pytest.raises(PrepError, match=r"none\.ppm cannot be read as an image: No such file"):
        look_at_file(tmp_path / "none.ppm")


def test_an_image_is_known_by_its_beginning_whatever_its_name(tmp_path):
    save(tmp_path / "a.png", [[0]], "L").rename(tmp_path / "a")
    (tmp_path / "b.png").write_text("no image")
    assert [is_image(tmp_path / name) for name in ("a", "b.png", "none")] == [True, False, False]


def test_the_content_of_a_file_is_decoded_like_the_file(tmp_path):
    path = save(tmp_path / "a.png", [[0, 7, 255]], "L")
    with path.open("rb") as opened:
        assert decode_image(opened, "it").tolist() == [[[0], [7], [255]]]
    with pytest.raises(PrepError, match="Image 3 of birds cannot be read as an image: its format"):
        decode_image(io.BytesIO(b"no image"), "Image 3 of birds")


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "notes.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("notes.jpg", "empty.png"):
        with pytest.raises(PrepError, match=f"{name} cannot be read .*: its format is unknown"):
            read_image(tmp_path / name)
    with pytest.raises(
        PrepError, match=r"none.png cannot be read .*: No such file or directory\.$"
    ):
        read_image(tmp_path / "none.png")


def test_a_mode_without_a_range_is_refused(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(PrepError, match=r"a\.tif has pixels of mode F: store it with 8 bits"):
        read_image(tmp_path / "a.tif")


def test_files_are_decoded_one_at_a_time_and_only_when_asked(tmp_path):
    paths = [save(tmp_path / f"{k}.png", [[k]], "L") for k in range(4)]
    files = StoredImages(ImageFiles(tuple(paths)), np.arange(4), np.array([1, 2, 3, 4]))
    files = files[np.array([3, 1, 0])]
    assert files.native_bytes.tolist() == [4, 2, 1]
    os.unlink(paths[0])
    decoded = iter(files)
    assert [next(decoded)[0, 0, 0], next(decoded)[0, 0, 0]] == [3, 1]
    with pytest.raises(PrepError, match=r"0\.png cannot be read"):
        next(decoded)
