"""What scikit-learn's own checks say of `VoxelEncoder`.

    python -m benchmarks.check_estimator

prints the checks that pass, and each that does not with its reason.
"""

from __future__ import annotations

import argparse
from typing import Any

from sklearn.utils.estimator_checks import check_estimator

from mine_jax.estimators import VoxelEncoder

# Check -> why it cannot pass.
EXPECTED = {
    "check_methods_sample_order_invariance": "asks for 1e-9; products are float32, whose blocks round differently",
    "check_methods_subset_invariance": "asks for 1e-7; products are float32, whose blocks round differently",
}
SETTINGS: dict[str, dict[str, Any]] = {"query": {"epochs": 1, "width": 8}, "ridge": {"folds": 2}}


def results(kind: str) -> list[dict[str, Any]]:
    """Returns what each check said of one kind of encoder."""
    estimator = VoxelEncoder().set_params(kind=kind, settings=SETTINGS[kind])
    return check_estimator(estimator, on_fail=None, on_skip=None)


def main() -> None:
    """Prints the result, and exits with 1 if a check fails that is not listed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="query,ridge", help="kinds of encoders, separated by commas")
    unexpected = 0
    for kind in parser.parse_args().kinds.split(","):
        found = results(kind)
        failed = [one for one in found if one["status"] == "failed"]
        print(f"{kind}: {sum(one['status'] == 'passed' for one in found)} of {len(found)} checks pass")
        for one in failed:
            name = one["check_name"]
            unexpected += name not in EXPECTED
            print(f"  {name}: {EXPECTED.get(name) or one['exception']}")
        for one in found:
            if one["status"] == "skipped":
                print(f"  {one['check_name']}: skipped, {one['exception']}")
    raise SystemExit(unexpected > 0)


if __name__ == "__main__":
    main()
