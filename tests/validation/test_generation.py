"""The generation test on planted voxels."""

import numpy as np
import pytest

from mine_jax.errors import ConfigError
from mine_jax.validation import compare_generation, generation, plan_generation

OPTIONS = {"n_permutations": 500, "n_bootstrap": 200}


def table_of(pairs, planted, planned, *, bad=None, honest=True):
    """Every image shows the words of its prompt; with `honest` off, some other pair's."""
    shown, records = {}, {}
    for pair in pairs:
        shown[f"original:{pair.image_id}"] = set(pair.description)
    for row, entry in enumerate(planned):
        if entry.item is None:
            continue
        status = (bad or {}).get(row, "ok")
        records[entry.item.file] = {"status": status, "seed": entry.item.seed, "prompt": entry.item.text, "sha256": "x"}
        if status == "ok":
            shown[entry.item.file] = set(entry.item.words) if honest else {"book"}
    return generation.generation_table(pairs, planned, records, [planted["evaluator"]()], planted["tokens"](shown))


def test_columns_begin_as_the_contract_says(pairs, planted):
    table = table_of(pairs, planted, plan_generation(pairs))
    wanted = ["voxel_id", "image_id", "condition", "seed", "prompt", "predicted", "original", "evaluator", "status"]
    assert table.columns[:9].tolist() == wanted
    assert len(table) == 6 * 3 * 2 and table["image"].iloc[7] == "images/generation-000007.png"


def test_description_beats_its_controls_and_the_null_does_not(pairs, planted):
    compared = compare_generation(table_of(pairs, planted, plan_generation(pairs)), **OPTIONS)
    effects = {(labels["comparison"], labels["voxels"]): result for labels, result in compared}
    assert effects["description minus random", "described"].effect == pytest.approx(1.5)
    assert effects["description minus random", "described"].p == pytest.approx(2 / 2**6)
    assert effects["description minus original image", "described"].effect == pytest.approx(0)
    null = effects["description minus random", "exchanged"]
    assert null.effect == pytest.approx(0) and null.p == 1


def test_a_generator_that_ignores_its_prompt_shows_no_effect(pairs, planted):
    compared = compare_generation(table_of(pairs, planted, plan_generation(pairs), honest=False), **OPTIONS)
    result = {labels["comparison"]: result for labels, result in compared if labels["voxels"] == "described"}
    assert result["description minus random"].effect == pytest.approx(0)
    assert result["description minus original image"].effect < -1


def test_controls_with_the_prompt_of_the_description_are_left_out_and_counted(pairs, planted):
    """Equal prompts with equal seeds give equal pictures: they would dilute the effect with zeros."""
    from dataclasses import replace

    alike = [replace(pair, random=pair.description) if p < 2 else pair for p, pair in enumerate(pairs)]
    compared = compare_generation(table_of(alike, planted, plan_generation(alike)), **OPTIONS)
    found = {(labels["comparison"], labels["voxels"]): result for labels, result in compared}
    random, lowest = (found[f"description minus {name}", "described"] for name in ("random", "lowest"))
    assert (random.n_pairs, random.n_same) == (4, 2) and (lowest.n_pairs, lowest.n_same) == (6, 0)
    assert random.effect == pytest.approx(1.5)
    assert found["description minus random", "exchanged"].n_same == 2


def test_unusable_images_are_never_scored(pairs, planted):
    """F-88: counted, not scored."""
    planned = plan_generation(pairs, n_seeds=1)
    table = table_of(pairs, planted, planned, bad={0: "black", 4: "nonfinite"})
    assert table["predicted"].isna().sum() == 2 and table["status"].value_counts()["ok"] == 16
    result = dict(
        (labels["comparison"], r)
        for labels, r in compare_generation(table, **OPTIONS)
        if labels["voxels"] == "described"
    )
    assert result["description minus random"].n_pairs == 4 and result["description minus lowest"].n_pairs == 5


def test_a_pair_without_words_has_a_status(pairs, planted):
    """F-91: nothing to say."""
    from dataclasses import replace

    planned = plan_generation([replace(pairs[0], lowest=()), *pairs[1:]], n_seeds=1)
    assert planned[2].item is None
    table = table_of(pairs, planted, planned)
    assert table["status"].iloc[2] == "no_words" and np.isnan(table["predicted"].iloc[2])


def test_seeds_are_shared_by_conditions_and_differ_between_pairs(pairs):
    planned = plan_generation(pairs, n_seeds=2)
    seeds = {}
    for entry in planned:
        seeds.setdefault((entry.pair, entry.item.seed), []).append(entry.condition)
    assert len(seeds) == 12 and all(len(conditions) == 3 for conditions in seeds.values())
    assert planned == plan_generation(pairs, n_seeds=2) and planned != plan_generation(pairs, n_seeds=2, seed=1)


def test_prompts_follow_the_template(pairs):
    planned = plan_generation(pairs, conditions=("description",), template="see {words}!")
    assert planned[0].item.text == "see cat!"
    with pytest.raises(ConfigError, match="conditions"):
        plan_generation(pairs, conditions=("descriptoin",))
