"""Random texts, volumes and photos: the value that another reader gives, or an error with a name."""

import csv as standard_csv
import io
import math
import unicodedata

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps

from mine_jax.data import ids, images, masks, tables
from mine_jax.data.containers import csv, positions, volumes
from mine_jax.data.folder.rois import read_rois
from mine_jax.errors import MineError

settings.register_profile(
    "few",
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("few")

# What breaks readers: separators, quotes, signs, other digits and spaces, forms of one letter, control characters.
TEXT = st.text(
    st.sampled_from("ab01.9-+eE_ \t\r\n\"',;#/\\\0\x0b\x1c\x85\u2028\ufeff\u00e9e\u0301\u0663\u00b2nN"), max_size=12
)
WORD = st.text(st.sampled_from("abz019_"), min_size=1, max_size=6)
NUMBER = st.one_of(
    st.integers(-3, 9).map(str),
    st.integers(-(10**25), 10**25).map(str),
    st.floats().map(str),
    st.sampled_from(["1e5", "1e999999999", "0x1", "1_0", "\u0663", "+1", " 7 ", "9" * 5000, "", "nan", "inf", "1.0"]),
)


def outcome(read, *given_):
    """What a reader gives, or None for an error with a name; everything else fails the test."""
    try:
        return read(*given_)
    except MineError as error:
        assert str(error)
        return None


@given(st.lists(st.one_of(TEXT, WORD, NUMBER), max_size=6))
def test_image_ids(tmp_path, lines):
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    found = outcome(ids.read, path)
    if found is None:
        return
    expected = path.read_text(encoding="utf-8-sig").split("\n")
    while not expected[-1].strip():
        expected.pop()
    assert len(found) == len(expected)
    for text, line in zip(found.tolist(), expected, strict=True):
        line = unicodedata.normalize("NFC", line.strip())
        # without folder and suffix, or a whole number without a point
        assert text in (line, ids.without_suffix(line)) or float(text) == float(line)
    names, index, counts = ids.distinct(found)
    assert names[index].tolist() == found.tolist() and counts.sum() == len(found)


@given(st.lists(NUMBER, min_size=1, max_size=5), st.sampled_from([None, 0, 1]))
def test_numbers_of_images(lines, base):
    naming = ids.Naming(("a", "b", "c"), base)
    cleaned = outcome(ids.clean, lines, "a list")
    found = None if cleaned is None else outcome(naming, cleaned, "a list")
    if found is not None and all(text.isdecimal() for text in cleaned.tolist()):
        assert found.tolist() == ["abc"[int(text) - (base or 0)] for text in cleaned.tolist()]


@given(st.lists(st.lists(st.one_of(WORD, NUMBER, TEXT), min_size=1, max_size=3), min_size=1, max_size=4))
def test_tab_separated_tables(tmp_path, rows):
    path = tmp_path / "a.tsv"
    path.write_text("\n".join("\t".join(row) for row in rows), encoding="utf-8", newline="")
    table = outcome(tables.read_tsv, path)
    if table is None:
        return
    lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    cells = [line.split("\t")[: table.shape[1]] for line in lines]
    assert table.columns.tolist() == [name.strip() for name in cells[0]]
    assert table.to_numpy().tolist() == cells[1:]
    for name in table:
        numbers = outcome(tables.whole_numbers, table[name], path)
        assert numbers is None or numbers.tolist() == [int(text) for text in table[name]]


@given(st.lists(st.tuples(NUMBER, WORD), min_size=1, max_size=5), st.booleans(), st.sampled_from(["", "255 0 0 0"]))
def test_tables_of_labels(tmp_path, pairs, has_header, color):
    path = tmp_path / "labels.ctab"
    lines = [f"{code}\t{name}" if has_header else f"{code} {name} {color}" for code, name in pairs]
    path.write_text("\n".join(["index\tname"] * has_header + lines), encoding="utf-8")
    found = outcome(positions.read_label_table, path)
    if found is not None:
        pairs = [(code, name) for code, name in pairs if has_header or code.strip()]
        assert [found[int(code)] for code, _ in pairs] == [name for _, name in pairs]


@given(st.lists(st.tuples(NUMBER, st.one_of(WORD, TEXT)), min_size=1, max_size=4))
def test_areas_of_voxels(tmp_path, rows):
    path = tmp_path / "rois.tsv"
    path.write_text(
        "voxel_id\troi\n" + "\n".join(f"{voxel}\t{roi}" for voxel, roi in rows), encoding="utf-8", newline=""
    )
    found = outcome(read_rois, path, np.arange(4))
    if found is not None:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=standard_csv.QUOTE_NONE)
        for voxel in range(4):
            names = table["roi"][table["voxel_id"].astype(int) == voxel].str.strip().tolist()
            names = [name for name in names if name.lower() not in ("", "-1", "0", "unknown")]
            assert found[0][voxel] == ";".join(dict.fromkeys(names))


@given(st.lists(st.lists(st.one_of(WORD, TEXT), min_size=2, max_size=2), min_size=1, max_size=4), st.binary(max_size=3))
def test_comma_separated_tables(tmp_path, rows, tail):
    path, written = tmp_path / "a.csv", io.StringIO()
    standard_csv.writer(written, lineterminator="\n").writerows([["a", "b"], *rows])
    path.write_bytes(written.getvalue().encode() + tail)
    outcome(csv.read_header, path)
    outcome(csv.read_numbers, path, ["b"])
    table = outcome(csv.read_columns, path, ["b"])
    if table is not None and not tail and not any("\r" in cell for row in rows for cell in row):
        assert table["b"].tolist() == [row[1] for row in rows]


@st.composite
def nifti(draw):
    """Bytes of a small volume with any type of numbers, order of bytes and scale."""
    kind = draw(st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "c8"]))
    order = draw(st.sampled_from("<>"))
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(kind).newbyteorder(order))
    shape = draw(st.sampled_from([(2, 3, 2), (3, 1, 1), (2, 2, 2, 1), (2, 2, 1, 1, 1)]))
    header.set_data_shape(shape)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    scales = st.sampled_from([0, 1, 2, 0.5, 1 / 300, -1, 1e-30, 1e30, math.nan, math.inf, 1 / 255])
    header["scl_slope"], header["scl_inter"] = draw(scales), draw(st.sampled_from([0, 0, 1, -0.5, math.nan, 1e30]))
    plain = {
        "i": st.integers(-3, 3),
        "u": st.integers(0, 3),
        "f": st.sampled_from([0.0, 1, 2, -1, 0.5, math.nan, math.inf]),
    }
    cells = plain.get(kind[0]) if kind[0] in plain and draw(st.booleans()) else None
    values = draw(arrays.arrays(np.dtype(kind).newbyteorder(order), shape, elements=cells))
    content = header.binaryblock + bytes(4) + values.tobytes(order="F")
    return content[: draw(st.integers(300, len(content)))] if draw(st.integers(0, 4)) == 0 else content


@given(nifti())
@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning:nibabel")
def test_volumes(tmp_path, content):
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    found = outcome(volumes.read_series, path)
    labels, mask = outcome(masks.read_labels, path), outcome(masks.read_mask, path)
    if found is None:
        assert labels is None and mask is None
        return
    with np.errstate(all="ignore"):
        expected = np.asanyarray(nibabel.load(path).dataobj)
    expected = expected.reshape(found[1].shape)
    values = found[0].reshape(found[1].shape)
    exact = found[1].value_dtype.itemsize > 4 or not found[1].is_scaled
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(
            values.astype(float), expected.astype(float), rtol=1e-12 if exact else 1e-6, atol=1e-37
        )
        whole = np.rint(expected.astype(np.float64))
        is_label = bool((np.abs(expected.astype(np.float64) - whole) <= 1e-3).all() and (np.abs(whole) < 2.0**53).all())
    assert (labels is not None) == is_label
    assert labels is None or np.array_equal(labels[0], whole)
    assert (mask is not None) == (is_label and set(whole.ravel()) == {0.0, 1.0})
    assert mask is None or np.array_equal(mask[0], whole == 1)


MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB", "YCbCr"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "GIF": ("L", "P", "RGB", "RGBA"),
    "WEBP": ("L", "RGB", "RGBA", "P"),
}


@st.composite
def photo(draw):
    """Bytes of a photo in any format and mode, with any orientation, perhaps damaged."""
    form = draw(st.sampled_from(sorted(MODES)))
    mode = draw(st.sampled_from(MODES[form]))
    width, height = draw(st.integers(1, 9)), draw(st.integers(4, 9))
    seed = np.random.default_rng(draw(st.integers(0, 99)))
    if mode in ("I;16", "I", "F"):
        top = draw(st.sampled_from([200, 4000, 65535, 70000 if mode == "I" else 65535]))
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(seed.integers(0, top, (height, width)).astype(kind))
    else:
        image = Image.fromarray(seed.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
        image = (
            image
            if mode == "RGBA"
            else image.convert("RGB").convert(mode)
            if mode != "LAB"
            else Image.new("LAB", (width, height))
        )
    options = {}
    if draw(st.booleans()) and form in ("PNG", "TIFF", "JPEG", "WEBP"):
        exif = Image.Exif()
        exif[0x0112] = draw(st.sampled_from([0, 1, 3, 6, 8, 9, 77]))
        options["exif"] = exif
    if draw(st.booleans()) and mode == "P" and form in ("PNG", "GIF"):
        options["transparency"] = draw(st.integers(0, 255))
    made = io.BytesIO()
    image.save(made, format=form, **options)
    content = bytearray(made.getvalue())
    damage = draw(st.sampled_from(["none", "none", "cut", "flipped"]))
    if damage == "cut":
        content = content[: draw(st.integers(0, len(content) - 1))]
    elif damage == "flipped":
        content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(content), damage == "none"


def on_white(content):
    """What Pillow and numpy make of a photo."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if image.mode.startswith("I"):
        values = np.asarray(image, np.float64)
        white = next((2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if 0 < values.max() < 2**bits), 65535.0)
        return np.repeat(np.rint(values * 255 / white)[..., None], 3, 2)
    pixels = np.asarray(image.convert("RGBA"), np.float64)
    alpha = pixels[..., 3:] / 255
    return pixels[..., :3] * alpha + 255 * (1 - alpha)


@given(photo())
def test_photos(given_):
    content, is_whole = given_
    pixels = outcome(
        images.decode,
        content,
    )
    if pixels is None:
        # what is whole is refused for its size or its kind of pixels alone
        image = Image.open(io.BytesIO(content)) if is_whole else None
        assert image is None or min(image.size) < 4 or image.mode in ("F", "I")
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    if is_whole:
        np.testing.assert_allclose(pixels, on_white(content), atol=1.01)


@given(st.lists(st.one_of(WORD, TEXT), min_size=1, max_size=4), st.sampled_from([".png", ".PNG", ".jpg", ""]))
def test_names_of_photos(tmp_path_factory, names, suffix):
    folder, there = tmp_path_factory.mktemp("photos"), set()
    for name in names:
        name = name.replace("/", "").replace("\0", "") + suffix
        if name not in ("", ".", ".."):
            (folder / name).write_bytes(b"x")
            there.add(name)
    found = outcome(images.list_photos, folder)
    if found is not None:
        assert set(found.names.values()) <= there
        assert all(unicodedata.normalize("NFC", file.rpartition(".")[0]) == name for name, file in found.names.items())


@pytest.mark.parametrize("values", [[0, 1, 0.7], [0, 1, np.nan], [0.2, 0.9, 0.1], [1, 1, 1]])
def test_a_mask_is_never_a_threshold(tmp_path, values):
    """F-33, for masks of a series in any container."""
    np.save(tmp_path / "mask.npy", np.array(values, np.float32))
    np.save(tmp_path / "betas.npy", np.zeros((4, 3), np.float32))
    like = positions.open_path(str(tmp_path / "betas.npy"))
    with pytest.raises(MineError, match="mask"):
        positions.read_mask(str(tmp_path / "mask.npy"), like)


def test_scaled_floats_keep_the_digits_of_the_scale(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((2, 1, 1))
    header["vox_offset"], header["scl_slope"], header["magic"] = 352, 1 / 255, b"n+1"
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4) + np.array([1, 3], "f4").tobytes())
    values, _ = volumes.read_series(tmp_path / "a.nii")
    np.testing.assert_allclose(values[:, 0], np.array([1, 3]) * float(np.float32(1 / 255)), rtol=1e-15)
