"""Every kind of photo: one documented result, or an error that names all bad files."""

import io
import struct
import unicodedata
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from mine_jax.data import images
from mine_jax.errors import AlignmentError, DataError, IntegrityError, MissingInputError

RED = np.zeros((6, 8, 3), np.uint8)
RED[..., 0] = 200


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_header(width, height):
    """A few bytes that declare any size."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def constant(mode, color):
    return Image.new(mode, (8, 6), color)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (constant("RGB", (200, 10, 30)), (200, 10, 30)),
        (constant("L", 77), (77, 77, 77)),
        (constant("1", 1), (255, 255, 255)),
        (constant("RGBA", (200, 0, 0, 255)), (200, 0, 0)),
        # Hidden colour does not show.
        (constant("RGBA", (200, 0, 0, 0)), (255, 255, 255)),
        (constant("LA", (0, 0)), (255, 255, 255)),
        (Image.fromarray(np.full((6, 8), 65535, np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((6, 8), 257 * 100, np.uint16)), (100, 100, 100)),
        (constant("RGB", (9, 8, 7)).quantize(4), (9, 8, 7)),
    ],
)
def test_modes(image, expected):
    """F-40: every mode has one documented result."""
    pixels = images.decode(encoded(image))
    assert pixels.dtype == np.uint8 and pixels.shape == (6, 8, 3)
    np.testing.assert_array_equal(pixels, np.broadcast_to(expected, (6, 8, 3)))


def test_half_transparent_lies_on_white():
    """F-40: alpha."""
    pixels = images.decode(encoded(constant("RGBA", (0, 0, 0, 128))))
    np.testing.assert_allclose(pixels, 127, atol=1)


def test_cmyk_becomes_rgb():
    """F-40: CMYK."""
    pixels = images.decode(encoded(constant("CMYK", (0, 255, 255, 0)), "JPEG", quality=95))
    np.testing.assert_allclose(pixels[0, 0], (255, 0, 0), atol=4)


def test_rotation_of_exif_is_applied():
    """F-41: a rotated photo."""
    exif = Image.Exif()
    exif[0x0112] = 6
    assert images.decode(encoded(constant("RGB", "red"), "JPEG", exif=exif)).shape == (8, 6, 3)


def test_larger_than_allowed_is_refused_by_the_header():
    """F-39: refused before it is decoded."""
    for side in (12000, 60000):
        with pytest.raises(DataError, match="max_pixels"):
            images.decode(png_header(side, side))
    assert images.decode(encoded(constant("L", 3)), max_pixels=48).shape == (6, 8, 3)
    with pytest.raises(DataError, match="8 x 6 pixels, more than `max_pixels` = 47"):
        images.decode(encoded(constant("L", 3)), max_pixels=47)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable photo"),
        (b"<html>404</html>", "not a readable photo"),
        (
            encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)))[:3000],
            "cut short",
        ),
        (encoded(Image.effect_noise((64, 64), 90), "JPEG")[:1200], "cut short"),
        (encoded(Image.new("RGB", (1, 1))), "at least 4"),
        (encoded(Image.new("RGB", (50, 3))), "at least 4"),
        (encoded(Image.fromarray(np.full((6, 8), np.nan, np.float32)), "TIFF"), "float pixels"),
        (encoded(constant("L", 0), "GIF", save_all=True, append_images=[constant("L", 200)]), "2 frames"),
    ],
)
def test_unusable_photos(content, message):
    """F-38, F-40, F-43, F-44: cut short, no photo, too small, float pixels, several frames."""
    with pytest.raises(DataError, match=message):
        images.decode(content)


def test_grey_fill_of_other_libraries_is_not_used(monkeypatch):
    """F-38: a cut photo is an error whatever others set."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="cut short"):
        images.decode(encoded(Image.effect_noise((64, 64), 90), "JPEG")[:1200])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_threads_leave_the_settings_of_others(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    noise = encoded(Image.effect_noise((64, 64), 90), "JPEG")
    filters, n = list(warnings.filters), 40
    with ThreadPoolExecutor(4) as pool:
        whole = list(pool.map(images.decode, [noise] * n))
        cut = [pool.submit(images.decode, noise[:1200]).exception() for _ in range(n)]
    assert all(np.array_equal(image, whole[0]) for image in whole)
    assert all(isinstance(error, DataError) for error in cut)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True and warnings.filters == filters


@pytest.fixture(params=["folder", "zip"])
def photos(request, tmp_path):
    """Three photos and things that are none, in a folder or a zip."""
    folder = tmp_path / "photos ü"
    (folder / "sub").mkdir(parents=True)
    for name, level in (("b.png", 2), ("sub/a.jpg", 1), (unicodedata.normalize("NFD", "é.png"), 3)):
        form = "JPEG" if name.endswith("jpg") else "PNG"
        (folder / name).write_bytes(encoded(constant("L", level), form))
    (folder / "readme.txt").write_text("no photo")
    (folder / "._b.png").write_text("no photo")
    if request.param == "folder":
        return folder
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return tmp_path / "photos.zip"


def test_ids_are_sorted_names_in_nfc(photos):
    """F-46: any order and normal form of names."""
    found = images.list_photos(photos)
    assert list(found.names) == ["a", "b", "é"]
    levels = [int(image[0, 0, 0]) for image in found.read(["é", "a", "é"])]
    assert levels == [3, 1, 3]
    assert [len(text) for text in found.scan(["a", "b"])] == [64, 64]
    with pytest.raises(AlignmentError, match="first c"):
        found.read(["a", "c"])


def test_all_bad_photos_are_named_at_once(tmp_path):
    """F-38: all in one error."""
    for name in ("x1", "x2"):
        (tmp_path / f"{name}.jpg").write_bytes(b"<html>")
    (tmp_path / "good.png").write_bytes(encoded(constant("L", 1)))
    found = images.list_photos(tmp_path)
    with pytest.raises(DataError, match=r"2 of 3 photos[\s\S]*x1\.jpg[\s\S]*x2\.jpg"):
        found.scan(list(found.names))


def test_two_photos_with_one_id(tmp_path):
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="one id"):
        images.list_photos(tmp_path)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(MissingInputError, match="no photos at"):
        images.list_photos(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no photo"):
        images.list_photos(tmp_path)
    (tmp_path / "bad.zip").write_bytes(b"PK\3\4 not really")
    with pytest.raises(IntegrityError, match="not a readable zip"):
        images.list_photos(tmp_path / "bad.zip")


def test_damaged_zip_entry(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", encoded(constant("L", 1)))
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(bytes(content))
    found = images.list_photos(path)
    with pytest.raises(DataError, match="cannot be unpacked"):
        found.scan(["a"])


def png(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_grey_is_scaled_by_the_bits_that_the_set_uses(tmp_path, bits, caplog):
    """F-40: 16 bits."""
    white = (1 << bits) - 1
    ramp = np.linspace(0, white, 64).round().astype(np.uint16).reshape(8, 8)
    (tmp_path / "bright.png").write_bytes(png(ramp))
    (tmp_path / "dark.png").write_bytes(png(ramp // 4))
    photos = images.list_photos(tmp_path)
    bright, dark = photos.read(["bright", "dark"])
    np.testing.assert_allclose(bright[..., 0], ramp * (255 / white), atol=0.5)
    np.testing.assert_allclose(dark[..., 0], (ramp // 4) * (255 / white), atol=0.5)
    assert (f"{white} is taken as white" in caplog.text) == (bits < 16)


def test_deep_colour_of_small_values_is_named():
    """Pillow keeps the upper 8 of 16 bits: written here by hand, since it cannot write them."""
    rows = b"".join(b"\0" + np.full((8, 3), 200, ">u2").tobytes() for _ in range(8))

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="16 bits per channel"):
        images.decode(content)


def exif_jpeg(*entries, data=b""):
    file = io.BytesIO()
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(file, "JPEG")
    jpeg = file.getvalue()
    body = b"Exif\0\0II*\0" + struct.pack("<LH", 8, len(entries)) + b"".join(entries) + struct.pack("<L", 0) + data
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


ROTATED = struct.pack("<HHLHH", 274, 3, 1, 6, 0)


@pytest.mark.parametrize("rational", [(-1, 0), (0, 0), (-2147483648, -1)])
def test_odd_rationals_in_exif(rational):
    entry = struct.pack("<HHLL", 282, 10, 1, 38)
    assert images.decode(exif_jpeg(ROTATED, entry, data=struct.pack("<ll", *rational))).shape == (48, 32, 3)


@pytest.mark.parametrize(
    "entry",
    [
        struct.pack("<HHLHH", 274, 3, 1, 99, 0),
        struct.pack("<HHL4s", 274, 2, 4, b"abc\0"),
        struct.pack("<HHLL", 274, 3, 200, 9999),
    ],
)
def test_orientations_that_mean_nothing_are_counted(tmp_path, entry, caplog):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(exif_jpeg(entry))
    photos = images.list_photos(tmp_path)
    photos.scan(["a", "b"])
    assert photos.read(["a"])[0].shape == (32, 48, 3)
    assert not caplog.records or ("2 photos in" in caplog.text and "taken as upright" in caplog.text)


def test_main_picture_of_a_phone():
    picture = Image.fromarray(np.tile(np.arange(48, dtype=np.uint8)[None, :, None] * 5, (32, 1, 3)))
    file = io.BytesIO()
    picture.save(file, "MPO", save_all=True, append_images=[picture.resize((24, 16))], quality=95)
    found = images.decode(file.getvalue())
    assert found.shape == (32, 48, 3) and np.abs(found.astype(int) - np.asarray(picture)).max() < 12


def test_linked_folders_and_loops(tmp_path):
    """F-46: links."""
    (tmp_path / "real").mkdir()
    (tmp_path / "photos").mkdir()
    for place in ("real/a.png", "photos/b.png"):
        (tmp_path / place).write_bytes(png(np.zeros((8, 8), np.uint8)))
    (tmp_path / "photos/set1").symlink_to("../real")
    (tmp_path / "real/back").symlink_to("../photos")
    assert list(images.list_photos(tmp_path / "photos").names) == ["a", "b"]


def test_zip_of_windows(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("photos\\a.png", png(np.zeros((8, 8), np.uint8)))
    photos = images.list_photos(tmp_path / "p.zip")
    assert list(photos.names) == ["a"] and photos.read(["a"])[0].shape == (8, 8, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_every_format_is_undone_once(form, orientation):
    """F-41: all eight, once."""
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:8, :16] = 255
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = Image.fromarray(upright)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    stored.save(file, form, exif=exif, **({"quality": 100} if form in ("JPEG", "WEBP") else {}))
    found = images.decode(file.getvalue())
    assert found.shape == upright.shape and np.abs(found.astype(int) - upright).mean() < 4
