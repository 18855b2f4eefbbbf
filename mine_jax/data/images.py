"""Photos from a folder or a zip: file names become ids, files become RGB arrays.

Conversions are fixed: EXIF rotation is applied, transparency lies on white, deep grey is scaled to
8 bits by the bits that the whole set uses. What has no one meaning (frames, float pixels) is an error.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import threading
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageFile

from mine_jax import artifacts
from mine_jax._progress import Progress, silent
from mine_jax.data.containers import hdf5
from mine_jax.errors import AlignmentError, DataError, IntegrityError, MissingInputError

_log = logging.getLogger(__name__)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# What these suffixes name; other parsers of Pillow never see a file, some start programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 50_000_000
# Below this nothing can be seen, and channels cannot be told from rows.
MIN_SIDE = 4
# One compressed photo; a zip entry that declares more is a bomb, not a photo.
_MAX_FILE_BYTES = 512 << 20
_N_SHOWN = 20
# Bits of cameras and scanners; the white of a set of deep photos is the largest value of so many bits.
_DEPTHS = (8, 10, 12, 14, 16)
# EXIF tag, and what undoes each orientation.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class PhotoFiles:
    """Photos found in one place.

    Attributes:
        source: the folder or zip, or an HDF5 file with the files in its dataset `images`.
        names: id -> file name (or row) within the source, ids ascending.
        max_pixels: refuse larger photos.
    """

    source: Path
    names: dict[str, str]
    max_pixels: int = MAX_PIXELS

    def read(self, image_ids: Sequence[str]) -> list[np.ndarray]:
        """Reads photos by id as uint8 [height, width, 3].

        Raises:
            AlignmentError: for an id that is not there.
            DataError: naming every photo that cannot be used.
        """
        unknown = [image_id for image_id in image_ids if image_id not in self.names]
        if unknown:
            raise AlignmentError(f"no photo in {self.source} for {len(unknown)} ids, first {', '.join(unknown[:5])}.")
        decoded: dict[str, np.ndarray] = {}

        def keep(image_id: str, content: bytes) -> None:
            decoded[image_id] = decode(content, max_pixels=self.max_pixels, white=lambda: self.white, note=_ignore)

        self._each(list(dict.fromkeys(image_ids)), keep, silent)
        return [decoded[image_id] for image_id in image_ids]

    def scan(self, image_ids: Sequence[str], *, progress: Progress = silent) -> np.ndarray:
        """Decodes photos once and returns the sha256 of each file, [N] str.

        Raises:
            DataError: naming every photo that cannot be used.
        """
        hashes: dict[str, str] = {}
        notes: dict[str, list[str]] = {}

        def inspect(image_id: str, content: bytes) -> None:
            def note(text: str) -> None:
                notes.setdefault(text, []).append(self.names[image_id])

            decode(content, max_pixels=self.max_pixels, white=lambda: self.white, note=note)
            hashes[image_id] = hashlib.sha256(content).hexdigest()

        self._each(image_ids, inspect, progress)
        for text, names in notes.items():
            _log.warning("%d photos in %s, first %s: %s", len(names), self.source, names[0], text)
        return np.array([hashes[image_id] for image_id in image_ids], str)

    @functools.cached_property
    def white(self) -> int:
        """Grey value that is white in photos of more than 8 bits, from the largest value of all that are here."""
        largest = 0

        def look(image_id: str, content: bytes) -> None:
            nonlocal largest
            del image_id
            with _strict, contextlib.suppress(Exception):
                image = Image.open(io.BytesIO(content), formats=_FORMATS)
                if image.mode.startswith("I") and image.width * image.height <= self.max_pixels:
                    largest = max(largest, int(np.asarray(image, np.int64).max()))

        self._each(list(self.names), look, silent)
        white = _white(largest)
        if white < 65535:
            _log.warning(
                "16-bit photos in %s hold values up to %d only: %d is taken as white", self.source, largest, white
            )
        return white

    def _each(self, image_ids: Sequence[str], use: Callable[[str, bytes], None], progress: Progress) -> None:
        """Calls `use` with the bytes of each photo and collects what is wrong with any."""
        bad = []
        read_bytes = _reader(self.source)
        for done, image_id in enumerate(image_ids, start=1):
            name = self.names[image_id]
            try:
                use(image_id, read_bytes(name))
            except (OSError, DataError) as error:
                bad.append(f"  {name}: {error}")
            progress(done, len(image_ids))
        if bad:
            shown = "\n".join(bad[:_N_SHOWN]) + (f"\n  and {len(bad) - _N_SHOWN} more" if len(bad) > _N_SHOWN else "")
            raise DataError(f"{len(bad)} of {len(image_ids)} photos in {self.source} cannot be used:\n{shown}")


def list_photos(source: str | Path, *, max_pixels: int = MAX_PIXELS) -> PhotoFiles:
    """Lists the photos of a folder (with its subfolders) or a zip; opens none of them.

    Args:
        source: folder or `.zip`.
        max_pixels: refuse larger photos when they are read.

    Returns:
        PhotoFiles: id = file name without suffix, in Unicode NFC.

    Raises:
        MissingInputError: if the source is not there.
        IntegrityError: if the zip is damaged.
        DataError: if there is no photo, or two share an id.
    """
    source = Path(source)
    is_zip = False
    if source.is_dir():
        files = [path.relative_to(source).as_posix() for path in artifacts.files_below(source)]
    elif source.is_file():
        try:
            with zipfile.ZipFile(source) as archive:
                files = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
                is_zip = True
        except zipfile.BadZipFile as error:
            raise IntegrityError(f"{source} is not a readable zip ({error}). Copy it again.") from error
    else:
        raise MissingInputError(f"no photos at {source}: give a folder or a zip.")
    names: dict[str, str] = {}
    clashes = []
    for file in sorted(files):
        # Some tools for Windows write "\\" into a zip.
        path = PurePosixPath(file.replace("\\", "/") if is_zip else file)
        if path.suffix.lower() not in SUFFIXES or any(part.startswith((".", "__MACOSX")) for part in path.parts):
            continue
        image_id = unicodedata.normalize("NFC", path.stem)
        if image_id in names:
            clashes.append(f"{names[image_id]} and {file}")
        names[image_id] = file
    unprintable = [repr(file) for file in names.values() if not file.isprintable()]
    if unprintable:
        raise DataError(
            f"{source} has {len(unprintable)} photos with control characters in their names, first "
            f"{', '.join(unprintable[:5])}. Rename them: names become ids in tables."
        )
    if clashes:
        raise DataError(f"{source} has {len(clashes)} pairs of photos with one id, first {'; '.join(clashes[:5])}.")
    if not names:
        raise DataError(f"{source} holds no photo ({', '.join(SUFFIXES)}).")
    return PhotoFiles(source, dict(sorted(names.items())), max_pixels)


def _ignore(text: str) -> None:
    del text


def decode(
    content: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    white: Callable[[], int] | None = None,
    note: Callable[[str], None] = _log.warning,
) -> np.ndarray:
    """Decodes one photo.

    Args:
        content: the bytes of the file.
        max_pixels: refuse larger photos, by their header.
        white: gives the grey value that is white in photos of more than 8 bits; asked only for such. None for the
            largest value of the bits that this photo uses.
        note: called with what is odd but usable.

    Returns:
        np.ndarray: uint8 [height, width, 3], rotated by EXIF, transparency on white, deep grey scaled.

    Raises:
        DataError: if it is no photo, cut short, too large or small, animated, or of float pixels.
    """
    try:
        with _strict:
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
            _check_header(image, max_pixels)
            is_deep = image.mode in ("RGB", "RGBA", "LA") and any("16" in str(tile[3]) for tile in image.tile)
            image.load()
            # Pillow turns TIFF itself while it loads.
            orientation = _orientation(image, note)
            if is_deep:
                _check_deep_colour(image)
            if image.mode.startswith("I"):
                image = _scaled_grey(image, white, note)
            return _as_rgb(image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image)
    except Image.DecompressionBombError as error:
        raise DataError(f"has more than `max_pixels` = {max_pixels} pixels ({error})") from error
    except DataError:
        raise
    except Exception as error:
        # The parsers of Pillow raise whatever damaged bytes lead them to.
        raise DataError(f"is not a readable photo, or is cut short ({error})") from error


class _StrictPillow:
    """Settings of Pillow, which belong to the process, while at least one thread decodes."""

    def __init__(self) -> None:
        self._lock, self._n_threads, self._before = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._n_threads == 0:
                # Some libraries set this to fill what is missing with grey.
                self._before.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
                ImageFile.LOAD_TRUNCATED_IMAGES = False
                self._before.enter_context(warnings.catch_warnings())
                # Size is judged by `max_pixels`.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                # Of damaged EXIF, which is noted by photo.
                warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            self._n_threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_threads -= 1
            if self._n_threads == 0:
                self._before.close()


_strict = _StrictPillow()


def _check_header(image: Image.Image, max_pixels: int) -> None:
    """Raises DataError for what must not be decoded."""
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(f"has {width} x {height} pixels, more than `max_pixels` = {max_pixels}")
    if min(width, height) < MIN_SIDE:
        raise DataError(f"has {width} x {height} pixels; each side must have at least {MIN_SIDE}")
    frames = getattr(image, "n_frames", 1)
    # Phones put previews and gain maps behind the main picture of a JPEG.
    if frames != 1 and image.format != "MPO":
        raise DataError(f"has {frames} frames; save the one that was shown as a photo of its own")
    if image.mode == "F":
        raise DataError("has float pixels, whose range is not known; save it with 8 or 16 bits")


def _orientation(image: Image.Image, note: Callable[[str], None]) -> int:
    """The EXIF orientation 1 to 8; 1 with a note where it cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        # As in `decode`; a photo whose pixels are whole is not lost for its EXIF.
        note("EXIF cannot be read; the photo is taken as upright")
        return 1
    if isinstance(value, int) and 0 <= value <= 8:
        return value
    note(f"EXIF orientation {value!r} means nothing; the photo is taken as upright")
    return 1


def _white(largest: int) -> int:
    """Largest value of the fewest usual bits that hold a value."""
    return next((1 << bits) - 1 for bits in _DEPTHS if largest < 1 << bits) if 0 < largest < 65536 else 65535


def _scaled_grey(image: Image.Image, white: Callable[[], int] | None, note: Callable[[str], None]) -> Image.Image:
    """Grey of more than 8 bits as 8 bits."""
    values = np.asarray(image, np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DataError(f"has grey values {low}..{high}, beyond 16 bits")
    if white is None:
        brightest = _white(high)
        if brightest < 65535:
            note(f"16-bit grey holds values up to {high} only: {brightest} is taken as white")
    else:
        brightest = white()
    return Image.fromarray(np.rint(values * (255 / brightest)).clip(0, 255).astype(np.uint8))


def _check_deep_colour(image: Image.Image) -> None:
    """Raises DataError for colour of 16 bits that uses few of them: Pillow keeps the upper 8 only."""
    if np.asarray(image.convert("RGB")).max() < 64:
        raise DataError(
            "has 16 bits per channel, whose values use 14 or fewer of them and would be nearly black. "
            "Save it with 8 bits per channel"
        )


def _as_rgb(image: Image.Image) -> np.ndarray:
    """Converts any mode of 8 bits to RGB, uint8 [height, width, 3]."""
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(background, image)
    return np.asarray(image.convert("RGB")).copy()


def _reader(source: Path) -> Callable[[str], bytes]:
    """Returns a function that reads one file of a folder or zip; threads may call it at once."""
    if source.is_dir():
        return lambda name: (source / name).read_bytes()
    if source.suffix in (".h5", ".hdf5"):
        return lambda name: _read_hdf5(source, int(name))
    state = source.stat()
    archive = _archive(source, state.st_mtime_ns, state.st_size)

    def read_entry(name: str) -> bytes:
        if archive.getinfo(name).file_size > _MAX_FILE_BYTES:
            raise DataError(f"declares more than {_MAX_FILE_BYTES} bytes")
        try:
            return archive.read(name)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
            raise DataError(f"cannot be unpacked ({error})") from error

    return read_entry


def _read_hdf5(source: Path, row: int) -> bytes:
    """The bytes of one photo in a dataset `images` of files."""
    with hdf5.opened(source, why="read photos in HDF5") as file:
        if "images" not in file:
            raise DataError(f"is in a file that must hold a dataset `images`, but holds {', '.join(file) or 'nothing'}")
        try:
            return np.asarray(file["images"][row], np.uint8).tobytes()
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise DataError(f"is no row of bytes ({error})") from error


@functools.lru_cache(maxsize=2)
def _archive(source: Path, mtime_ns: int, size: int) -> zipfile.ZipFile:
    """Opens a zip and keeps it open: its index of many thousand photos is read once, not for every batch."""
    del mtime_ns, size
    return zipfile.ZipFile(source)
