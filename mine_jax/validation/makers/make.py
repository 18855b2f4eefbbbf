"""Makes all images of the stage: plans them for each model, lets the model work, keeps what came.

On a phantom every model has the exact one beside it, on the same pairs, words and seeds: what
a perfect generator or editor would reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mine_jax._progress import Progress
from mine_jax.config import ValidationConfig
from mine_jax.description import TokenWords
from mine_jax.validation import editing, generation, regions
from mine_jax.validation.generation import Generated
from mine_jax.validation.inputs import Inputs
from mine_jax.validation.makers import models, pictures
from mine_jax.validation.makers.models import Model
from mine_jax.validation.makers.pictures import Item
from mine_jax.validation.pairs import Pair

# Names of the manifests and first parts of the files' names: by role, configured or exact beside it.
_NAMES = {"generator": ("generation", "exact_generation"), "editor": ("edits", "exact_edits")}
TABLES = {"generator": "generation", "editor": "edits"}


@dataclass(frozen=True)
class Made:
    """What one model was asked for, and what came.

    Attributes:
        role: "generator" or "editor".
        model: the model.
        generated: plan of a generator; empty for an editor.
        located: plan of an editor; None for a generator.
        items: one per entry of the plan; None where there are no words.
        records: file name -> record, see `pictures`.
    """

    role: str
    model: Model
    generated: list[Generated]
    located: regions.Located | None
    items: list[Item | None]
    records: dict[str, dict[str, Any]]

    @property
    def usable(self) -> list[str]:
        """File names of the images that can be scored, sorted."""
        return sorted(file for file, record in self.records.items() if record["status"] == "ok")


class Bar(Protocol):
    """One progress bar over several parts."""

    total: int

    def part(self, size: int) -> Progress:
        """Returns the callback of the next part."""
        ...


def make_all(
    settings: ValidationConfig,
    makers: Mapping[str, Sequence[Model]],
    inputs: Inputs,
    pairs: Sequence[Pair],
    words: TokenWords | None,
    out: Path,
    *,
    seed: int,
    bar: Bar,
) -> list[Made]:
    """Plans and makes all images; those of models that are no longer asked for are deleted.

    Args:
        settings: section [validation].
        makers: role -> its models, the configured one first.
        inputs: of the stage.
        pairs: what to test.
        words: token words of the pairs' images.
        out: the stage's folder; images go to `images/`, what editors read to `.work/`.
        seed: of the run.
        bar: is told how much there is to do.

    Returns:
        One entry per model, generators first.
    """
    planned: list[tuple[str, Model, str, _Plan]] = []
    for role, names in _NAMES.items():
        chosen = makers.get(role, ())
        for name in names[len(chosen) :]:
            pictures.clear(out / "images", name)
        plan = _plan_images if role == "generator" else _plan_edits
        for model, name in zip(chosen, names, strict=False):
            planned.append((role, model, name, plan(settings, model, inputs, pairs, words, out, name, seed)))
    bar.total = 2 * sum(item is not None for *_, plan in planned for item in plan.items) + len(pairs)
    made = []
    for role, model, name, plan in planned:
        real = [item for item in plan.items if item is not None]
        records = models.make(
            model, real, out / "images", name=name, retries=settings.retries, progress=bar.part(len(real))
        )
        made.append(Made(role, model, plan.generated, plan.located, plan.items, records))
    return made


class _Plan(NamedTuple):
    generated: list[Generated]
    located: regions.Located | None
    items: list[Item | None]


def _plan_images(settings, model, inputs, pairs, words, out, name, seed) -> _Plan:
    del inputs, words, out
    side = settings.size
    planned = generation.plan_generation(
        pairs,
        conditions=settings.conditions,
        n_seeds=settings.n_seeds,
        template=model.templates["generate"],
        size=None if side is None else (side, side),
        seed=seed,
        name=name,
    )
    return _Plan(planned, None, [entry.item for entry in planned])


def _plan_edits(settings, model, inputs, pairs, words, out, name, seed) -> _Plan:
    edits = editing.plan_edits(pairs, n_seeds=settings.n_seeds, strengths=settings.strengths, seed=seed)
    located = regions.locate(edits, pairs, inputs, words, out / ".work" / name, exact=model.exact)
    items = editing.edit_items(
        edits, sources=located.sources, masks=located.masks, templates=model.templates, pairs=pairs, name=name
    )
    return _Plan([], located, items)
