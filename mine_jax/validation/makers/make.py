"""Makes all images of the stage: plans them for each model, lets the model work, keeps what came.

On a phantom every model has the exact one beside it, on the same pairs, words and seeds: what
a perfect generator or editor would reach.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mine_jax import sharding
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
_POLL_S = 0.2


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
    """One progress bar over several parts of work, some of them in other threads."""

    def __init__(self, progress: Progress) -> None:
        """Keeps the callback; `total` is set when it is known."""
        self.progress, self.total = progress, 1
        self._parts: list[int] = []

    def tick(self) -> None:
        """Says that work goes on."""
        self.progress(min(sum(self._parts), self.total), self.total)

    def part(self, *, cost: int = 1, stop: threading.Event | None = None) -> Progress:
        """Returns the progress callback of a part.

        Args:
            cost: of each of its images, in those of reading one.
            stop: of a part in another thread, which must not move the bar itself: once set, the callback raises.
        """
        number = len(self._parts)
        self._parts.append(0)

        def report(done: int, total: int) -> None:
            del total
            self._parts[number] = done * cost
            if stop is None:
                self.tick()
            elif stop.is_set():
                raise CancelledError

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
    records = _carry_out(orders, todo, costs, images, retries=settings.retries, bar=bar)
    return [ImageSet(order.model, order.plan, order.items, made) for order, made in zip(orders, records, strict=True)]


def _carry_out(
    orders: Sequence[_Order],
    todo: Sequence[list[Item]],
    costs: Sequence[int],
    images: Path,
    *,
    retries: int,
    bar: Bar,
) -> list[dict[str, dict[str, Any]]]:
    """Lets every model make its images, small pipelines side by side: as many as there are cores, longest first.

    Returns:
        The records of each order.
    """
    stop, waiting = threading.Event(), dict[int, Future]()

    def carry_out(number: int, progress: Progress) -> dict[str, dict[str, Any]]:
        order = orders[number]
        return models.make(order.model, todo[number], images, name=order.name, retries=retries, progress=progress)

    is_aside = [models.is_small(order.model) for order in orders]
    with ThreadPoolExecutor(sharding.available_cores()) as pool:
        try:
            for number in sorted(range(len(orders)), key=lambda number: -len(todo[number])):
                if is_aside[number]:
                    progress = bar.part(cost=costs[number], stop=stop)
                    waiting[number] = pool.submit(carry_out, number, progress)
            made = {
                number: carry_out(number, bar.part(cost=costs[number]))
                for number in range(len(orders))
                if not is_aside[number]
            }
            left = set(waiting.values())
            while left:
                done, left = wait(left, timeout=_POLL_S, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                bar.tick()
            made |= {number: future.result() for number, future in waiting.items()}
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return [made[number] for number in range(len(orders))]


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
