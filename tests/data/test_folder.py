"""Anyone's own data: averages, trials and series, and every way in which rows can be misaligned."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from mine_jax import data
from mine_jax.config import FolderConfig
from mine_jax.errors import AlignmentError, ConfigError, DataError, GeometryError, IntegrityError, MissingInputError

N, V, R, SESSIONS = 12, 5, 3, 4


class Own:
    """A folder of photos img00..img11, responses and tables."""

    def __init__(self, root):
        self.root = root
        self.rng = np.random.default_rng(0)
        self.ids = [f"img{i:02d}" for i in range(N)]
        (root / "photos").mkdir()
        for i, name in enumerate(self.ids):
            Image.fromarray(np.full((6, 7, 3), i, np.uint8)).save(root / "photos" / f"{name}.png")
        self.averages = self.rng.standard_normal((N, V)).astype(np.float32)
        self.write("responses.npy", self.averages)
        self.write("ids.txt", "\n".join(self.ids))
        self.order = self.rng.permutation(np.repeat(np.arange(N), R))
        self.sessions = np.arange(N * R) // (N * R // SESSIONS)
        signal = self.rng.standard_normal((N, V))
        self.trials = signal[self.order] + self.rng.standard_normal((N * R, V)) + 10.0 * self.sessions[:, None]
        self.write("trials.npy", self.trials)
        self.write_trials()

    def write(self, name, content):
        if isinstance(content, str):
            (self.root / name).write_text(content)
        else:
            np.save(self.root / name, content)

    def write_trials(self, rows=None):
        rows = np.arange(N * R) if rows is None else rows
        lines = [f"{self.ids[self.order[t]]}\tses{self.sessions[t]}\t{t % 2}" for t in rows]
        self.write("trials.tsv", "image_id\tsession\trun\n" + "\n".join(lines) + "\n")

    def config(self, **changes):
        paths = {"images": "photos", "responses": "responses.npy", "image_ids": "ids.txt", **changes}
        keys = ("images", "responses", "image_ids", "trials", "noise_ceiling", "mask", "rois", "sphere")
        resolved = {k: str(self.root / v) if k in keys and v is not None else v for k, v in paths.items()}
        return FolderConfig(**{"test": 0.25, **resolved})

    def load(self, **changes):
        return data.load(self.config(**changes))

    def load_trials(self, **changes):
        return self.load(**{"responses": "trials.npy", "image_ids": None, "trials": "trials.tsv", **changes})

    def scored(self):
        """Oracle: z-scores within session, float64."""
        scores = self.trials.copy()
        for session in range(SESSIONS):
            part = self.trials[self.sessions == session]
            scores[self.sessions == session] = (part - part.mean(0)) / part.std(0)
        return scores


@pytest.fixture
def own(tmp_path):
    return Own(tmp_path)


def test_averages_are_taken_as_they_are(own):
    responses, stimuli = own.load()
    np.testing.assert_array_equal(responses.responses, own.averages)
    assert responses.image_ids.tolist() == own.ids and responses.voxel_ids.tolist() == list(range(V))
    assert np.isnan(responses.noise_ceiling).all() and set(responses.n_repeats) == {1}
    assert [int(image[0, 0, 0]) for image in stimuli.read(["img03", "img01"])] == [3, 1]
    assert len(set(stimuli.hashes)) == N and not stimuli.shared.any()
    assert data.open_stimuli(own.config()).image_ids.tolist() == own.ids


def test_rows_in_another_order_give_equal_responses(own):
    """F-03: rows are joined by id."""
    expected, _ = own.load()
    order = own.rng.permutation(N)
    own.write("responses.npy", own.averages[order])
    own.write("ids.txt", "\n".join(own.ids[i] + ".png" for i in order))
    found, _ = own.load()
    np.testing.assert_array_equal(found.responses, expected.responses)
    np.testing.assert_array_equal(found.image_ids, expected.image_ids)


def test_trials_match_float64_numpy(own):
    """F-07: repeats become one row, so no image stands in two splits."""
    responses, _ = own.load_trials()
    scores = own.scored()
    np.testing.assert_allclose(responses.responses, [scores[own.order == i].mean(0) for i in range(N)], atol=1e-6)
    noise = np.mean([scores[own.order == i].var(0, ddof=1) for i in range(N)], 0)
    np.testing.assert_allclose(responses.ncsnr, np.sqrt(np.maximum(0, 1 - noise)) / np.sqrt(noise), rtol=1e-9)
    assert set(responses.n_repeats) == {R}


def test_permuted_sessions_and_trials_change_nothing(own):
    """F-11: ids and sessions travel with the trials."""
    expected, _ = own.load_trials()
    order = own.rng.permutation(N * R)
    own.write("trials.npy", own.trials[order])
    own.write_trials(order)
    found, _ = own.load_trials()
    np.testing.assert_allclose(found.responses, expected.responses, atol=1e-6)
    np.testing.assert_allclose(found.ncsnr, expected.ncsnr, rtol=1e-9)


def test_scores_within_runs_and_none(own):
    runs, _ = own.load_trials(zscore="run")
    groups = own.sessions * 2 + np.arange(N * R) % 2
    scores = own.trials.copy()
    for group in np.unique(groups):
        part = own.trials[groups == group]
        scores[groups == group] = (part - part.mean(0)) / part.std(0)
    np.testing.assert_allclose(runs.responses, [scores[own.order == i].mean(0) for i in range(N)], atol=1e-6)
    plain, _ = own.load_trials(zscore="none")
    np.testing.assert_allclose(plain.responses, [own.trials[own.order == i].mean(0) for i in range(N)], rtol=1e-5)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(">f4"),
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(np.float64),
        lambda x: np.repeat(x, 2, 1)[:, ::2],
    ],
)
def test_layouts_give_equal_responses(own, convert):
    """F-23: byte order, layout and strides."""
    expected, _ = own.load()
    own.write("responses.npy", convert(own.averages))
    np.testing.assert_array_equal(own.load()[0].responses, expected.responses)


def test_half_precision_overflow_is_a_status(own):
    """F-24: infinity in float16."""
    half = own.averages.astype(np.float16)
    half[3, 2] = np.inf
    own.write("responses.npy", half)
    responses, _ = own.load()
    assert responses.status.tolist() == ["ok", "ok", "nonfinite", "ok", "ok"]
    np.testing.assert_array_equal(responses.responses[:, 0], half[:, 0].astype(np.float32))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((N, V), complex), "real numbers"),
        (np.zeros((N, V), "U3"), "real numbers"),
        (np.zeros((N, V), bool), "real numbers"),
        (np.array([[None] * V] * N), "real numbers"),
        (np.zeros(N), "must have axes"),
        (np.zeros((N, 0)), "0 voxels"),
        (np.full((N, V), 1e300) * np.arange(1, N + 1)[:, None], "beyond float32"),
    ],
)
def test_unusable_values(own, values, message):
    """F-25, F-29: types that are no numbers, values beyond float32, and no voxels."""
    np.save(own.root / "responses.npy", values, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        own.load()


def test_truncated_npy(own):
    path = own.root / "responses.npy"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(IntegrityError, match="cut short"):
        own.load()
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(IntegrityError, match="cut short"):
        own.load()
    path.unlink()
    with pytest.raises(MissingInputError, match=r"responses\.npy"):
        own.load()


def test_constant_and_tiny_voxels(own):
    """F-18, F-19: no variance, and next to none."""
    own.averages[:, 1] = 7
    own.averages[:, 3] = 1e-7 * own.averages[:, 3]
    own.write("responses.npy", own.averages)
    responses, _ = own.load()
    assert responses.status.tolist() == ["ok", "constant", "ok", "constant", "ok"]


def test_integers_of_16_bits_are_divided_by_300(own):
    """F-20: once, unless a scale is given."""
    own.write("responses.npy", np.rint(own.averages * 300).astype(np.int16))
    np.testing.assert_allclose(own.load()[0].responses, own.averages, atol=1 / 300)
    np.testing.assert_allclose(own.load(beta_scale=1.0)[0].responses, own.averages * 300, atol=1)


def test_one_voxel(own):
    """F-30: one voxel."""
    own.write("responses.npy", own.averages[:, :1])
    assert own.load()[0].responses.shape == (N, 1)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([f"img{i:02d}" for i in range(N - 1)], AlignmentError, "12 rows, but .* 11 ids"),
        (["img00"] + [f"img{i:02d}" for i in range(N - 1)], AlignmentError, "more than once, first img00"),
        (["-1"] + [f"img{i:02d}" for i in range(1, N)], AlignmentError, "line 1 .*'-1'"),
        (["img00", "nan"] + [f"img{i:02d}" for i in range(2, N)], AlignmentError, "line 2 .*'nan'"),
        (["imgXX"] + [f"img{i:02d}" for i in range(1, N)], AlignmentError, "no photo for 1 image ids, first imgXX"),
        ([str(i) for i in range(1, N + 1)], AlignmentError, "count from 1. Set `index_base`"),
        ([str(i) for i in range(1, N)] + ["40"], AlignmentError, "index_base"),
    ],
)
def test_misaligned_ids(own, ids, error, message):
    """F-01, F-02, F-04, F-05, F-07: ids that do not fit, or stand in more than one row."""
    own.write("ids.txt", "\n".join(ids))
    with pytest.raises(error, match=message):
        own.load()


@pytest.mark.parametrize("base", [0, 1])
def test_numeric_ids_are_positions(own, base):
    """F-01: the base that ids count from."""
    own.write("ids.txt", "\n".join(str(i + base) for i in range(N)))
    responses, _ = own.load(index_base=base)
    assert responses.image_ids.tolist() == own.ids
    with pytest.raises(AlignmentError, match="row"):
        own.load(index_base=1 - base)


def test_numeric_photo_names_are_numbers_not_positions(own):
    for i, file in enumerate(sorted((own.root / "photos").iterdir())):
        file.rename(file.with_name(f"{i}.png"))
    own.write("ids.txt", "\n".join(str(i) for i in range(N)))
    named, _ = own.load()
    own.write("ids.txt", "\n".join(str(i + 1) for i in range(N)))
    shifted, _ = own.load(index_base=1)
    np.testing.assert_array_equal(named.image_ids, shifted.image_ids)
    np.testing.assert_array_equal(named.responses, shifted.responses)
    with pytest.raises(AlignmentError, match="index_base"):
        own.load()


def test_square_averages_may_be_transposed(own, caplog):
    """Shapes cannot tell; others can, and say nothing."""
    own.load()
    assert "square" not in caplog.text
    np.save(own.root / "square.npy", np.random.default_rng(0).standard_normal((N, N)))
    own.load(responses="square.npy")
    assert f"square, [{N}, {N}]" in caplog.text and "transposed" in caplog.text


def test_missing_photos_can_be_dropped(own, caplog):
    """F-05: dropped when asked, and counted."""
    (own.root / "photos" / "img04.png").unlink()
    responses, _ = own.load(on_missing="drop")
    assert len(responses.image_ids) == N - 1 and "img04" not in responses.image_ids
    np.testing.assert_array_equal(responses.responses, np.delete(own.averages, 4, 0))
    assert "1 rows of 1 images are left out" in caplog.text


def test_without_photos_reading_says_so(own):
    responses, stimuli = own.load(images=None)
    assert responses.image_ids.tolist() == own.ids
    with pytest.raises(MissingInputError, match="`images` is not set"):
        stimuli.read(["img00"])
    own.write("ids.txt", "\n".join(str(i + 1) for i in range(N)))
    assert set(own.load(images=None, index_base=1)[0].image_ids) == {str(i) for i in range(N)}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"image_ids": None}, ConfigError, "either `image_ids`"),
        ({"trials": "trials.tsv"}, ConfigError, "not both"),
        ({"responses": None}, ConfigError, "`responses` is needed"),
        ({"responses": "ids.txt"}, ConfigError, "must end with"),
        ({"image_ids": "nowhere.txt"}, MissingInputError, "nowhere.txt"),
        ({"images": "nowhere"}, MissingInputError, "nowhere"),
        ({"image_ids": "photos/img00.png"}, IntegrityError, "UTF-8"),
    ],
)
def test_configurations_that_cannot_be_read(own, changes, error, message):
    with pytest.raises(error, match=message):
        own.load(**changes)


def test_trials_without_their_columns(own):
    own.write("trials.tsv", "image_id\trun\n" + "img00\t1\n" * N * R)
    with pytest.raises(ConfigError, match="lacks session"):
        own.load_trials()
    own.write("trials.tsv", "image_id\tsession\n" + "img00\t1\n" * (N * R - 1) + "img01\t\n")
    with pytest.raises(AlignmentError, match=r"line 37 .* has no session"):
        own.load_trials()


def series(own, affine=None, shape=(2, 3, 2)):
    """The trials as a NIfTI series with a mask of five voxels."""
    own.write_trials()
    where = np.zeros(shape, bool)
    where.ravel()[[0, 3, 4, 7, 11]] = True
    volumes = np.zeros((*shape, N * R), np.float32)
    volumes[where] = own.trials.T
    nibabel.save(nibabel.Nifti1Image(volumes, np.eye(4)), own.root / "series.nii.gz")
    mask = nibabel.Nifti1Image(where.astype(np.uint8), np.eye(4) if affine is None else affine)
    nibabel.save(mask, own.root / "mask.nii.gz")
    return {"responses": "series.nii.gz", "mask": "mask.nii.gz"}


def test_series_equals_array(own):
    found, _ = own.load_trials(**series(own))
    expected, _ = own.load_trials()
    np.testing.assert_allclose(found.responses, expected.responses, atol=1e-5)
    assert found.voxel_ids.tolist() == [0, 3, 4, 7, 11]
    assert found.indices.tolist() == [[0, 0, 0], [0, 1, 1], [0, 2, 0], [1, 0, 1], [1, 2, 1]]
    assert found.volume.shape == (2, 3, 2)


def test_series_with_another_mask(own):
    """F-31: a mask with another affine."""
    paths = series(own, affine=np.diag([2.0, 2, 2, 1]))
    with pytest.raises(GeometryError, match="affine"):
        own.load_trials(**paths)
    with pytest.raises(ConfigError, match="needs `mask`"):
        own.load_trials(responses="series.nii.gz")


def test_rois_may_overlap(own):
    """F-34: overlaps are kept, and -1 and 0 are no area."""
    memberships = ("0 FFA 1 2 3", "0 face 1 2 3", "1 0 0 0 0", "2 PPA 5 5 5", "3 -1 0 0 1", "4 FFA 9 9 9")
    rows = "\n".join(("voxel_id roi i j k", *memberships)).replace(" ", "\t")
    own.write("rois.tsv", rows)
    responses, _ = own.load(rois="rois.tsv")
    assert responses.rois.tolist() == ["FFA;face", "", "PPA", "", "FFA"]
    assert responses.indices[0].tolist() == [1, 2, 3]
    own.write("rois.tsv", "voxel_id\troi\n2\tPPA\n2\tPPA\n")
    responses, _ = own.load(rois="rois.tsv")
    assert responses.rois.tolist() == ["", "", "PPA", "", ""] and responses.indices is None


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("voxel_id\troi\n9\tFFA\n", AlignmentError, "not in `responses`, first 9"),
        ("voxel_id\troi\nx\tFFA\n", DataError, "line 2 .*whole number"),
        ("voxel\troi\n1\tFFA\n", DataError, "lacks voxel_id"),
        ("voxel_id\troi\n1\tA;B\n", DataError, "must not hold ';'"),
        ("voxel_id\troi\n", DataError, "no rows"),
    ],
)
def test_unusable_rois(own, text, error, message):
    """F-34: tables that assign nothing or what is not there."""
    own.write("rois.tsv", text)
    with pytest.raises(error, match=message):
        own.load(rois="rois.tsv")


def test_large_responses_are_memory_mapped(own, tmp_path, monkeypatch):
    expected, _ = own.load()
    monkeypatch.setattr("mine_jax.data.trials.LARGE_BYTES", 10)
    responses, _ = data.load(own.config(), directory=tmp_path / "run")
    assert isinstance(responses.responses, np.memmap)
    np.testing.assert_array_equal(responses.responses, expected.responses)


def test_known_ceilings_of_averages(own):
    known = np.array([0.1, 0.5, np.nan, 1.0, 0.3], np.float32)
    own.averages[:, 3] = 2.0
    own.write("responses.npy", own.averages)
    own.write("ceiling.npy", known)
    config = own.config(noise_ceiling="ceiling.npy")
    responses, _ = data.load(config)
    # that of a voxel that cannot be used is not known; it is that of test rows, too
    expected = np.where(np.arange(V) == 3, np.nan, known.astype(np.float64))
    np.testing.assert_array_equal(responses.noise_ceiling, expected)
    np.testing.assert_array_equal(
        data.with_low_ceiling(responses, min_noise_ceiling=0.2).status[:3], ["low_ceiling", "ok", "ok"]
    )
    assert own.root / "ceiling.npy" in data.inputs(config)
    assert "median noise ceiling of the test images 0.30" in data.check(config)


@pytest.mark.parametrize(
    ("values", "changes", "error", "message"),
    [
        (np.full(V, 40.0), {}, DataError, "Divide percents by 100"),
        (np.full(V + 1, 0.4), {}, AlignmentError, "each of the 5 voxels"),
        (np.array(["a"] * V), {}, AlignmentError, "a number for each"),
        (None, {}, MissingInputError, "ceiling.npy"),
        (
            np.full(V, 0.4),
            {"responses": "trials.npy", "image_ids": None, "trials": "trials.tsv"},
            ConfigError,
            "repeats",
        ),
    ],
)
def test_unusable_ceilings(own, values, changes, error, message):
    if values is not None:
        own.write("ceiling.npy", values)
    with pytest.raises(error, match=message):
        own.load(noise_ceiling="ceiling.npy", **changes)


def test_low_ceilings_are_a_status(own):
    responses, _ = own.load_trials()
    responses = data.with_low_ceiling(responses, min_noise_ceiling=0.6)
    low = responses.noise_ceiling < 0.6
    assert 0 < low.sum() < V
    np.testing.assert_array_equal(responses.status, np.where(low, "low_ceiling", "ok"))


@pytest.mark.parametrize("on_missing", ["error", "drop"])
@pytest.mark.parametrize("form", ["{}", "im{:02d}"])
def test_ids_from_zero_and_photos_from_one(tmp_path, on_missing, form):
    """F-01: lists that differ by one."""
    (tmp_path / "p").mkdir()
    for k in range(20):
        Image.fromarray(np.full((8, 8), 4 * k, np.uint8)).save(tmp_path / "p" / f"{form.format(k + 1)}.png")
    np.save(tmp_path / "y.npy", np.random.default_rng(0).standard_normal((20, 3)))
    (tmp_path / "ids.txt").write_text("\n".join(form.format(k) for k in range(20)))
    files = {"images": "p", "responses": "y.npy", "image_ids": "ids.txt"}
    config = FolderConfig(**{key: str(tmp_path / name) for key, name in files.items()}, on_missing=on_missing)
    with pytest.raises(AlignmentError, match=r"differ by one"):
        data.load(config)


class Sessions(Own):
    """The trials of `Own` as one volume per session, and an atlas with its table."""

    shape = (3, 4, 2)
    where = (0, 5, 6, 17, 23)

    def write_volumes(self, slopes=None):
        for session in range(SESSIONS):
            rows = np.flatnonzero(self.sessions == session)
            volume = np.zeros((24, len(rows)))
            volume[list(self.where)] = self.trials[rows].T
            image = nibabel.Nifti1Image(volume.reshape(*self.shape, -1), np.diag([2, 2, 2, 1.0]))
            if slopes:
                image.set_data_dtype(np.int16)
            nibabel.save(image, self.root / f"ses{session + 8}.nii.gz")
            lines = "".join(f"{self.ids[self.order[t]]}\n" for t in rows)
            (self.root / f"ses{session + 8}.tsv").write_text("image_id\n" + lines)
        mask = np.zeros(24, np.uint8)
        mask[list(self.where)] = 1
        codes = np.zeros(24, np.int16)
        codes[[0, 5, 6]], codes[17] = 4, 7
        for name, values in (("mask", mask), ("atlas", codes)):
            volume = nibabel.Nifti1Image(values.reshape(self.shape), np.diag([2, 2, 2, 1.0]))
            nibabel.save(volume, self.root / f"{name}.nii.gz")
        (self.root / "atlas.tsv").write_text("index\tname\n0\tBackground\n4\tFFA\n7\tPPA\n")


@pytest.mark.parametrize("slopes", [False, True])
def test_one_volume_per_session(tmp_path, slopes):
    own = Sessions(tmp_path)
    own.write_volumes(slopes)
    expected, _ = own.load_trials()
    files = {"responses": "ses*.nii.gz", "trials": "ses*.tsv", "image_ids": None, "rois": "atlas.nii.gz"}
    responses, _ = own.load(**files, mask="mask.nii.gz")
    np.testing.assert_allclose(responses.responses, expected.responses, atol=5e-3 if slopes else 1e-6)
    assert responses.voxel_ids.tolist() == list(own.where)
    assert responses.rois.tolist() == ["FFA", "FFA", "FFA", "PPA", ""]
    np.testing.assert_array_equal(responses.indices, np.stack(np.unravel_index(own.where, own.shape), 1))
    without_mask, _ = own.load(**files)
    np.testing.assert_array_equal(without_mask.responses, responses.responses[:, :4])
    names = {path.name for path in data.inputs(own.config(**files))}
    assert {"ses8.nii.gz", "ses11.nii.gz", "ses11.tsv", "atlas.nii.gz"} <= names
    (tmp_path / "ses11.tsv").write_text("image_id\nimg00\n")
    with pytest.raises(AlignmentError, match=r"ses11.nii.gz has 9 rows, but .*ses11.tsv has 1"):
        own.load(**files)


def test_atlas_with_a_table_elsewhere_and_without(tmp_path, caplog):
    own = Sessions(tmp_path)
    own.write_volumes()
    files = {"responses": "ses*.nii.gz", "trials": "ses*.tsv", "image_ids": None, "rois": "atlas.nii.gz"}
    (tmp_path / "lut.txt").write_text("# id name r g b\n0 Unknown 0 0 0\n4 left-FFA 255 0 0\n7 PPA 0 0 255\n")
    lut = str(tmp_path / "lut.txt")
    assert own.load(**files, roi_labels=lut)[0].rois.tolist() == ["left-FFA"] * 3 + ["PPA"]
    (tmp_path / "lut.txt").write_text("0 Unknown\n4 left-FFA\n", encoding="utf-8")
    assert own.load(**files, roi_labels=lut)[0].rois.tolist() == ["left-FFA"] * 3
    assert caplog.text.count("1 codes of") == 1 and "have no name, first 7" in caplog.text
    with pytest.raises(ConfigError, match=r"`rois` must be a table of areas \(.tsv, .txt, .*but is .*areas.csv"):
        own.load(**files | {"rois": "areas.csv"}, mask="mask.nii.gz")
    (tmp_path / "atlas.tsv").unlink()
    assert own.load(**files)[0].rois.tolist() == ["area-4"] * 3 + ["area-7"]


@pytest.mark.parametrize("kind", ["gii", "mgh"])
def test_surfaces_of_one_s_own(tmp_path, kind):
    own = Own(tmp_path)
    for name, part, codes in (("L", own.trials[:, :3], [0, 1, 1]), ("R", own.trials[:, 3:], [2, 0])):
        part = part.astype(np.float32)
        if kind == "gii":
            arrays = [nibabel.gifti.GiftiDataArray(row, datatype="NIFTI_TYPE_FLOAT32") for row in part]
            nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), tmp_path / f"hemi-{name}.gii")
        else:
            nibabel.save(nibabel.MGHImage(part.T[:, None, None], np.eye(4)), tmp_path / f"hemi-{name}.mgh")
        table = nibabel.gifti.GiftiLabelTable()
        for key, text in ((0, "???"), (1, "FFA"), (2, "PPA")):
            label = nibabel.gifti.GiftiLabel(key=key)
            label.label = text
            table.labels.append(label)
        array = nibabel.gifti.GiftiDataArray(np.array(codes, np.int32), "NIFTI_INTENT_LABEL", "NIFTI_TYPE_INT32")
        nibabel.save(nibabel.gifti.GiftiImage(darrays=[array], labeltable=table), tmp_path / f"{name}.label.gii")
    expected, _ = own.load_trials()
    responses, _ = own.load_trials(responses=f"hemi-{{hemi}}.{kind}", rois="{hemi}.label.gii")
    np.testing.assert_allclose(responses.responses, expected.responses, atol=1e-4)
    assert responses.surface.n_vertices == (3, 2) and responses.rois.tolist() == ["", "FFA", "FFA", "PPA", ""]
    assert responses.places is None
    at = {"L": 100 * np.eye(3), "R": -100 * np.eye(3)[:2]}
    for name, part in at.items():
        nibabel.freesurfer.write_geometry(tmp_path / f"{name}.sphere", part, np.array([[0, 1, 0]]))
    files = {"responses": f"hemi-{{hemi}}.{kind}", "sphere": "{hemi}.sphere"}
    placed, _ = own.load_trials(**files)
    np.testing.assert_allclose(placed.sphere, np.concatenate([at["L"], at["R"]]), atol=1e-4)
    assert {tmp_path / "L.sphere", tmp_path / "R.sphere"} < set(data.inputs(own.config(**files)))
    with pytest.raises(ConfigError, match="`sphere` is for responses on both hemispheres"):
        own.load_trials(sphere="{hemi}.sphere")
