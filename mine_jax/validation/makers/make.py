"""Makes all images of the stage: plans them for each model, lets the model work, keeps what came.

On a phantom every model has the exact one beside it, on the same pairs, words and seeds: what
a perfect generator or editor would reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mine_jax._progress import Progress
from mine_jax.config import ValidationConfig
from mine_jax.description import TokenWords
from mine_jax.validation import editing, generation, regions
from mine_jax.validation.generation import Generation
from mine_jax.validation.inputs import Inputs
from mine_jax.validation.makers import models, pictures
from mine_jax.validation.makers.models import Model
from mine_jax.validation.makers.pictures import Item
from mine_jax.validation.pairs import Pair
from mine_jax.validation.regions import LocatedEdits

# Names of the manifests and first parts of the files' names: by role, configured, exact beside it, with true masks.
_NAMES = {"generator": ("generation", "exact_generation"), "editor": ("edits", "exact_edits", "masked_edits")}
# Pairs that are edited with true masks, too.
N_TRUE_MASKS = 24
# Time until a pipeline has made an image, in those of reading one: about that of the smallest ones on a CPU. For the
# time that is left only.
_COST = 20


@dataclass(frozen=True)
class ImageSet:
    """What one model was asked for, and what came.

    Attributes:
        model: the model.
        plan: that of a generator, or of an editor.
        items: one per entry of the plan; None where there are no words.
        records: file name -> record, see `pictures`.
    """

    model: Model
    plan: list[Generation] | LocatedEdits
    items: list[Item | None]
    records: dict[str, dict[str, Any]]

    @property
    def usable(self) -> list[str]:
        """File names of the images that can be scored, sorted."""
        return sorted(file for file, record in self.records.items() if record["status"] == "ok")


class Bar:
    """One progress bar over several parts of work."""

    def __init__(self, progress: Progress) -> None:
        """Keeps the callback; `total` is set when it is known."""
        self.progress, self.done, self.total = progress, 0, 1

    def tick(self) -> None:
        """Says that work goes on."""
        self.progress(min(self.done, self.total), self.total)

    def part(self, size: int, *, cost: int = 1) -> Progress:
        """Returns the progress callback of the next part: so many images, each of a cost in those of reading one."""
        start = self.done
        self.done += size * cost

        def report(done: int, total: int) -> None:
            del total
            self.progress(min(start + done * cost, self.total), self.total)

        return report


def make_all(
    settings: ValidationConfig,
    makers: Mapping[str, Sequence[Model]],
    inputs: Inputs,
    pairs: Sequence[Pair],
    token_words: TokenWords,
    images: Path,
    *,
    work: Path,
    seed: int,
    bar: Bar,
) -> list[ImageSet]:
    """Plans and makes all images; those of models that are no longer asked for are deleted.

    Args:
        settings: section [validation].
        makers: role -> its models, the configured one first.
        inputs: of the stage.
        pairs: what to test.
        token_words: of the pairs' images.
        images: folder where the images are kept.
        work: folder for what editors read.
        seed: of the run.
        bar: is told how much there is to do.

    Returns:
        One entry per model, generators first.
    """
    orders: list[_Order] = []
    for role, names in _NAMES.items():
        models_of_role = makers.get(role, ())
        used = [names[2] if model.true_masks else names[min(i, 1)] for i, model in enumerate(models_of_role)]
        for name in set(names) - set(used):
            pictures.clear(images, name)
        for model, name in zip(models_of_role, used, strict=True):
            if role == "generator":
                orders.append(_order_generation(settings, model, pairs, name, seed))
            else:
                edits = _plan_edits(settings, model, pairs, seed)
                located = regions.locate(
                    edits,
                    pairs,
                    inputs,
                    token_words,
                    work / name,
                    exact=model.exact,
                    true_masks=model.true_masks or model.exact,
                )
                orders.append(_order_edits(located, model, pairs, name))
    todo = [[item for item in order.items if item is not None] for order in orders]
    costs = [1 if order.model.exact else _COST for order in orders]
    bar.total = sum(len(items) * (cost + 1) for items, cost in zip(todo, costs, strict=True)) + len(pairs)
    image_sets = []
    for order, items, cost in zip(orders, todo, costs, strict=True):
        progress = bar.part(len(items), cost=cost)
        records = models.make(order.model, items, images, name=order.name, retries=settings.retries, progress=progress)
        image_sets.append(ImageSet(order.model, order.plan, order.items, records))
    return image_sets


class _Order(NamedTuple):
    """What a model shall make, and the name of its manifest."""

    model: Model
    name: str
    plan: list[Generation] | LocatedEdits
    items: list[Item | None]


def _plan_edits(settings: ValidationConfig, model: Model, pairs: Sequence[Pair], seed: int) -> list[editing.Edit]:
    return editing.plan_edits(
        pairs[:N_TRUE_MASKS] if model.true_masks else pairs,
        n_seeds=settings.n_seeds,
        strengths=settings.strengths,
        with_distractors=not model.true_masks,
        seed=seed,
    )


def _order_generation(settings: ValidationConfig, model: Model, pairs: Sequence[Pair], name: str, seed: int) -> _Order:
    side = settings.size
    plan = generation.plan_generation(
        pairs,
        conditions=settings.conditions,
        n_seeds=settings.n_seeds,
        template=model.templates["generate"],
        size=None if side is None else (side, side),
        seed=seed,
        name=name,
    )
    return _Order(model, name, plan, [entry.item for entry in plan])


def _order_edits(located: LocatedEdits, model: Model, pairs: Sequence[Pair], name: str) -> _Order:
    items = editing.edit_items(
        located.edits,
        sources=located.sources,
        masks=located.masks,
        templates=model.templates,
        pairs=pairs,
        name=name,
    )
    return _Order(model, name, located, items)
