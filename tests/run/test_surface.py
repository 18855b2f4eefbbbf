"""Surface data from files to the tables of areas: with spheres the null are maps as smooth, without it is not."""

from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from benchmarks.icosphere import icosphere
from mine_jax import artifacts, config
from mine_jax._progress import silent
from mine_jax.run import files
from mine_jax.run.graph import STEPS
from tests.roi.planted import CATEGORIES, CORPUS, profiles

POINTS, TRIANGLES = icosphere(3)
N, N_IMAGES = len(POINTS), 24


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Responses of two hemispheres with three areas, of which A prefers faces."""
    areas = np.array(["ABCD"[int(x > 0) + 2 * int(y > 0)] if z > 0.3 else "" for x, y, z in POINTS] * 2)
    rng = np.random.default_rng(0)
    for hemi in ("lh", "rh"):
        values = rng.standard_normal((N, 1, 1, N_IMAGES)).astype(np.float32)
        nibabel.save(nibabel.MGHImage(values, np.eye(4)), tmp_path / f"{hemi}.betas.mgh")
        nibabel.freesurfer.write_geometry(tmp_path / f"{hemi}.sphere", 100 * POINTS, TRIANGLES)
    (tmp_path / "ids.txt").write_text("".join(f"photo{n}\n" for n in range(N_IMAGES)))
    rows = [f"{voxel}\t{area}\n" for voxel, area in enumerate(areas) if area]
    (tmp_path / "rois.tsv").write_text("voxel_id\troi\n" + "".join(rows))
    words = np.where(areas == "A", rng.integers(0, 2, 2 * N), rng.integers(0, 6, 2 * N))
    monkeypatch.setattr(files, "load_profiles", lambda directory: profiles(words, noise=0.05))
    scores = SimpleNamespace(r2=np.ones(2 * N), r2_normalized=np.ones(2 * N), status=np.full(2 * N, "ok"))
    monkeypatch.setattr(files, "load_scores", lambda directory: scores)
    monkeypatch.setattr(files, "corpus", lambda directory: CORPUS)
    return tmp_path


@pytest.mark.parametrize(("sphere", "null"), [("{hemi}.sphere", "surrogates"), (None, "permuted voxels")])
def test_null_of_areas(folder, sphere, null):
    data = {"kind": "folder", "responses": "{hemi}.betas.mgh", "image_ids": "ids.txt", "rois": "rois.tsv", "test": 0.25}
    roi = {"n_surrogates": 60, "n_permutations": 400, "categories": {k: list(v) for k, v in CATEGORIES.items()}}
    values = {"data": data | ({"sphere": sphere} if sphere else {}), "roi": roi}
    made = config.from_dict(values, base=folder)
    assert (folder / "rh.sphere" in STEPS["data"].inputs(made)) == (sphere is not None)
    said = STEPS["data"].compute(made, folder / "run", silent)
    assert ("set `data.sphere`" in said["warning"]) == (sphere is None)
    said = STEPS["roi"].compute(made, folder / "run", silent)
    table = artifacts.read_table(folder / "run/roi/selectivity.tsv")
    assert set(table["null"]) == {null} and said["preferred"] == {"A": "face"}
    structure = artifacts.read_table(folder / "run/roi/structure.tsv")
    assert len(structure) == 4 and structure["structure_p"].notna().all() == (sphere is not None)
    assert (folder / "run/maps/lh.top_category.func.gii").is_file()
