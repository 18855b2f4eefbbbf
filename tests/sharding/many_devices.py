"""Fits and attributes small data on one mesh; a program, so that tests choose its devices and processes.

    python tests/sharding/many_devices.py OUT MESH[:KINDS]...   MESH: none, or voxel x data such as 4x1

KINDS are of `FITS`; without any, all. Writes OUT/MESH.npz for each mesh, from process 0 where there are several.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from mine_jax import attribution, encoder, sharding
from mine_jax.config import QueryConfig, RidgeConfig
from mine_jax.encoder import ridge
from mine_jax.types import ImageTokens, Responses, Split

# Five voxels and 43 images: no axis divides them.
N_VOXELS, N_IMAGES, WIDTH, GRID = 5, 43, 6, (3, 3)
QUERY = QueryConfig(width=4, position_order=2, batch_size=16, epochs=2)
SHARED = QUERY.model_copy(update={"trunk": "shared", "heads": 2})
LINEAR = QUERY.model_copy(update={"linear": True, "members": 2})
RIDGE = RidgeConfig(folds=3, penalties=6)
FITS = {"query": QUERY, "shared": SHARED, "linear": LINEAR, "ridge": RIDGE}


def made_split():
    rng = np.random.default_rng(0)
    states = rng.standard_normal((N_IMAGES, GRID[0] * GRID[1], WIDTH)).astype(np.float32)
    weights = rng.standard_normal((WIDTH, N_VOXELS))
    signal = states.mean(1) @ weights + np.tanh(states[:, 2, :N_VOXELS])
    responses = (signal + 0.3 * rng.standard_normal(signal.shape)).astype(np.float32)
    unknown, ids = np.full(N_VOXELS, np.nan), np.arange(N_IMAGES).astype(str)
    return Split(
        ImageTokens(states, ids, None, GRID),
        Responses(
            responses,
            ids,
            np.ones(N_IMAGES, int),
            np.array([40, 7, 19, 3, 88]),
            np.array(["ok"] * N_VOXELS),
            unknown,
            unknown,
            np.array([""] * N_VOXELS),
        ),
    )


def results(mesh, kinds):
    """Predictions of encoders of some kinds; of all, also banded ridge, attributions and curves of the first kind.

    Ridge, attribution and ranked images use all devices in one way: one shape of the mesh stands for all.
    """
    split, key = made_split(), jax.random.key(0)
    out, chosen = {}, None
    for name in kinds or FITS:
        encoders = encoder.fit(split, key=key, config=FITS[name], mesh=mesh)
        out[name] = encoder.predict(encoders, split.tokens, mesh=mesh)
        chosen = encoders if chosen is None else chosen
        if name == "shared":
            out |= {f"shared {part}": value for part, value in encoders.shared.items()}
    if kinds:
        return out
    assert chosen is not None
    out |= {f"banded {name}": value for name, value in banded(split, mesh)._asdict().items()}
    out["top images"] = encoder.top_images(chosen, split.tokens, n=4, image_chunk=5, mesh=mesh)
    images = np.stack([np.roll(split.tokens.image_ids, v)[:7] for v in range(N_VOXELS)])
    for name, ids in {"listed": images, "grid": None}.items():
        made = attribution.integrated_gradients(chosen, split.tokens, image_ids=ids, n_steps=4, max_steps=4, mesh=mesh)
        critical = attribution.critical_tokens(made, k=3)
        patched = attribution.patch_tokens(chosen, split.tokens, made, k=3, n_random=2, mesh=mesh)
        out |= {f"{name} scores": made.scores, f"{name} indices": critical.indices}
        out |= {f"{name} without": patched.necessity["ig"], f"{name} with": patched.sufficiency["random"]}
    return out


def banded(split, mesh):
    """Banded ridge on the first and the last dimensions of the mean token; each voxel prefers one candidate."""
    bands = np.split(split.tokens.tokens.mean(1), 2, axis=1)
    weights = np.array([[1, 0], [0, 1], [1, 1]])
    responses = split.responses.responses
    return ridge.solve_banded(bands, responses, np.logspace(-2, 2, 5), band_weights=weights, folds=3, mesh=mesh)


def main(directory, *names):
    sharding.start(timeout_s=60)
    with sharding.telling_others():
        for name in names:
            name, *kinds = name.replace(":", ",").split(",")
            axes = dict(zip(sharding.DEVICES, map(int, name.split("x")), strict=True)) if name != "none" else None
            made = results(None if axes is None else sharding.mesh(axes), kinds)
            if sharding.process_id() == 0:
                np.savez(Path(directory) / f"{name}.npz", **made)
        sharding.exchange()


if __name__ == "__main__":
    main(*sys.argv[1:])
