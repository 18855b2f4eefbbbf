"""A finished run as a folder to give away: encoders, lens and profiles, without photos, responses or paths.

config.json          what was fitted and how photos are read; sha256 of the other files
model.safetensors    encoders, lens and the shares of words
voxels.tsv           place, areas, accuracy, claim and reason of each voxel
profiles.tsv         ranked words with intervals
features/            what was fitted to image-tokens, where they were denoised or reduced
README.md            for people
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
import safetensors.numpy

import mine_jax
from mine_jax import artifacts, config, types
from mine_jax.config import Config, PrecomputedConfig
from mine_jax.convert import frames
from mine_jax.errors import CheckpointError, ConfigError, MissingInputError, WeightsError
from mine_jax.features import Backbone
from mine_jax.run import files
from mine_jax.run.finished.model import FittedModel
from mine_jax.run.finished.open_run import Run, open_run
from mine_jax.statistics import mean_r2
from mine_jax.types import Encoders, Lens

SCHEMA = 1
CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "README.md"
VOXELS, PROFILES = "voxels.tsv", "profiles.tsv"


class Published(FittedModel):
    """A published folder, opened by `load`; nothing is read before it is asked for."""

    def __init__(self, directory: Path, settings: Config, description: Mapping[str, Any]) -> None:
        """Keeps the configuration, and what `config.json` says of encoders and lens."""
        super().__init__(directory, settings)
        self._description = description

    def __repr__(self) -> str:
        """Says where, and of how many voxels."""
        return f"Published({str(self.directory)!r}; {len(self.encoders.voxel_ids)} voxels)"

    @functools.cached_property
    def encoders(self) -> Encoders:
        """Encoders of V voxels."""
        architecture = dict(self._description["architecture"])
        architecture["grid"] = architecture["grid"] and tuple(architecture["grid"])
        held = _below(self._tensors, "encoders")
        return Encoders(
            shared=_below(held, "shared"),
            per_voxel=_below(held, "per_voxel"),
            architecture=types.Architecture(**architecture),
            baseline=held["baseline"],
            voxel_ids=held["voxel_ids"],
            status=held["status"],
            selection_r2=held.get("selection_r2"),
        )

    @functools.cached_property
    def lens(self) -> Lens | None:
        """What reads image-tokens as words; None where there is none."""
        described = self._description["lens"]
        if described is None:
            return None
        arrays = _below(self._tensors, "lens")
        fields: dict[str, Any] = {name: array for name, array in arrays.items() if "." not in name}
        fields |= {**described, "words": np.array(described["words"], dtype=str), "mlp": _below(arrays, "mlp") or None}
        return Lens(**fields)

    @functools.cached_property
    def corpus(self) -> np.ndarray:
        """Mean share [C] of each word over the images of the fit."""
        return self._tensors["corpus"]

    @property
    def voxels(self) -> pd.DataFrame:
        """One row for each voxel: place, areas, accuracy, claim and its reason."""
        return artifacts.read_table(self.directory / VOXELS)

    @property
    def profiles(self) -> pd.DataFrame:
        """One row for each word of each profile, with its share and interval."""
        return artifacts.read_table(self.directory / PROFILES)

    def backbone(self) -> Backbone:
        """Loads the model that reads photos, and checks that it is the one of the fit."""
        if not isinstance(self.config.features, PrecomputedConfig) and self.config.features.model is None:
            raise ConfigError(
                f"{self.directory} was fitted with the model {self._description['image_model']}, which is not part of "
                'it: mine.load(DIR, model="the folder of that checkpoint").'
            )
        of_hub = config.hub_id(self.config.features)
        try:
            backbone = super().backbone()
        except MissingInputError as error:
            if of_hub is None:
                raise
            revision = self.config.features.model_dump()["revision"]
            raise MissingInputError(
                f"{self.directory} was fitted with the model {of_hub} at revision {revision}, which is not whole in "
                f"the local cache. Fetch it: hf download {of_hub} --revision {revision}; or name a folder that has it: "
                'mine.load(DIR, model="the folder of that checkpoint").'
            ) from error
        if backbone.sha256 != self._description["image_model_sha256"]:
            raise WeightsError(
                f"{self.directory} was fitted with the model {self._description['image_model']}, but this one has "
                f"other weights or settings: {backbone.name}:{backbone.sha256[:12]}."
            )
        return backbone

    @functools.cached_property
    def _tensors(self) -> dict[str, np.ndarray]:
        path = self.directory / TENSORS
        if not path.is_file() or artifacts.sha256(path) != self._description["sha256"]:
            raise CheckpointError(f"{path} is missing, or differs from the sha256 in {CONFIG}. Copy the folder again.")
        return safetensors.numpy.load_file(path)


def publish(run: Run | str | Path, directory: str | Path) -> Path:
    """Writes a folder that predicts and explains new photos, without anything of the subject's raw data.

    Args:
        run: a run whose profile stage is done, opened or its directory.
        directory: a new or empty folder.

    Returns:
        The folder; `load` opens it. It holds no path, no photo, no response and no id of an image.

    Raises:
        ConfigError: if the folder is not empty.
        MissingInputError: if the run is not there or not far enough.
    """
    run, directory = run if isinstance(run, Run) else open_run(run), Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty. Publish to a new folder.")
    if files.why_no_profiles(run.directory) is not None or run.profiles is None:
        raise MissingInputError(f"{run.directory} has no profiles: {files.why_no_profiles(run.directory)}.")
    settings = run.config
    files.verify(run.directory, "voxels.tsv", "description/corpus.*")
    voxels, words = run.voxels, frames.profile_words(run.profiles)
    tensors, lens = _tensors(run)
    private = {*config.paths(settings.features), "allow_download"}
    described: dict[str, Any] = {
        "schema": SCHEMA,
        "mine_jax": mine_jax.__version__,
        "unit": settings.data.unit_name,
        "features": settings.features.model_dump(mode="json", exclude=private),
        "attribution": settings.attribution.model_dump(mode="json"),
        "description": settings.description.model_dump(mode="json"),
        "run": {"precision": settings.run.precision},
        "architecture": dataclasses.asdict(run.encoders.architecture),
        "lens": lens,
        "image_model": None,
    }
    if not isinstance(settings.features, PrecomputedConfig):
        backbone = run.backbone()
        described |= {"image_model": backbone.name, "image_model_sha256": backbone.sha256}
    with artifacts.atomic(directory / TENSORS) as temporary:
        temporary.write_bytes(safetensors.numpy.save(tensors))
    for folder in files.fitted_to_tokens(run.directory):
        artifacts.copy_folder(folder, directory / "features" / folder.name)
    artifacts.write_table(directory / VOXELS, voxels)
    artifacts.write_table(directory / PROFILES, words)
    artifacts.write_text(directory / CARD, _card(described, voxels))
    artifacts.write_json(directory / CONFIG, {**described, "sha256": artifacts.sha256(directory / TENSORS)})
    return directory


def load(directory: str | Path, *, model: str | Path | None = None) -> Published:
    """Opens what `publish` wrote.

    Args:
        directory: the folder; it may have come from elsewhere.
        model: folder of the model's checkpoint, where it is none of the package; checked by its sha256.

    Returns:
        What predicts, attributes and explains photos, as an opened run does. It never fetches its model.

    Raises:
        MissingInputError: if it is no such folder.
        CheckpointError: if another version wrote it.
    """
    directory = Path(directory)
    if not (directory / CONFIG).is_file():
        raise MissingInputError(f"{directory} is no published folder: it has no {CONFIG}.")
    described = artifacts.read_json(directory / CONFIG)
    if not isinstance(described, dict) or described.get("schema") != SCHEMA:
        raise CheckpointError(f"{directory / CONFIG} is not of schema {SCHEMA}, which this version of mine_jax reads.")
    with artifacts.described_by(directory / CONFIG):
        sections = {name: dict(described[name]) for name in ("features", "attribution", "description", "run")}
    # a folder that came from elsewhere may not ask for downloads
    sections["features"].pop("allow_download", None)
    if model is not None:
        sections["features"] = {**sections["features"], "model": str(model), "revision": None}
    return Published(directory, config.from_dict(sections, source=str(directory / CONFIG)), described)


def _tensors(run: Run) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Names all arrays of encoders, lens and corpus; what is plain of the lens beside them."""
    encoders, lens = run.encoders, run.lens
    named: dict[str, Any] = {"corpus": run.corpus}
    for name in ("baseline", "voxel_ids", "status", "selection_r2"):
        named[f"encoders.{name}"] = getattr(encoders, name)
    for group in ("shared", "per_voxel"):
        named |= {f"encoders.{group}.{name}": array for name, array in getattr(encoders, group).items()}
    plain: dict[str, Any] | None = None
    if lens is not None:
        plain = {"words": lens.words.tolist()}
        for field in dataclasses.fields(lens):
            value = getattr(lens, field.name)
            if field.name == "mlp":
                named |= {f"lens.mlp.{name}": array for name, array in (value or {}).items()}
            elif hasattr(value, "shape") and field.name != "words":
                named[f"lens.{field.name}"] = value
            elif isinstance(value, str | float | bool):
                plain[field.name] = value
    return {name: np.ascontiguousarray(array) for name, array in named.items() if array is not None}, plain


def _below(tensors: Mapping[str, np.ndarray], group: str) -> dict[str, Any]:
    """Returns the arrays of a group, by the rest of their names."""
    return {name.removeprefix(f"{group}."): array for name, array in tensors.items() if name.startswith(f"{group}.")}


def _card(described: Mapping[str, Any], voxels: pd.DataFrame) -> str:
    """Writes the model card."""
    unit, fitted = described["unit"], voxels[voxels["status"] == "ok"]
    r2 = mean_r2(fitted["r2"].to_numpy())
    claims = voxels["claim"].value_counts().reindex(list(types.CLAIMS), fill_value=0)
    counts = "\n".join(f"| {claim} | {n} |" for claim, n in claims.items())
    model = described["image_model"] or "tokens computed elsewhere"
    return f"""# Encoders of {len(voxels)} {unit}s, with what they respond to in words

Fitted by mine_jax {described["mine_jax"]} to responses to photos, on image-tokens of {model}.
Encoders: {described["architecture"]["kind"]}; {len(fitted)} {unit}s were fitted, mean R2 on test images {r2:.3f}.

```python
import mine_jax as mine

model = mine.load("this folder")
model.predict("photo.jpg")                    # z-scored responses, one column for each {unit}
model.explain("photo.jpg", voxel={int(fitted["voxel_id"].iloc[0])})  # words of what drives it in this photo
```

| highest claim | {unit}s |
|---|---|
{counts}

`voxels.tsv`: place, areas, accuracy, claim and why not more. `profiles.tsv`: words with shares and 95 % intervals.
`model.safetensors`: encoders, lens and shares of words. `config.json`: settings, and how photos are read.

Words are claims only from "words" on. "causal" means that edited images move a predicted response, not a measured
one. The words of one photo say what its critical image-tokens read as; they are no claim about the {unit}.
"""
