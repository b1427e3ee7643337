"""Results that do not belong together are refused with the list, by what differs."""

from typing import Any

import pytest
from result_fixtures import PAIRS, make_result, planned_grid

from analysis.mixed import MixedError, mixed_note, refuse_mixed
from analysis.study import Study
from trainer.records.recipe import Recipe
from trainer.records.result import Result

PLANNED = planned_grid(PAIRS, [0.1, 0.2], training=Recipe(epochs=4))


def study(*changed: str, part: str = "", **update: Any) -> Study:
    """Make a whole study in which some runs' results differ."""
    results = {run.run.id: make_result(run) for run in PLANNED}
    for run_id in changed:
        result = results[run_id]
        change: dict[str, Any] = {part: getattr(result, part).model_copy(update=update)} if part else update
        results[run_id] = result.model_copy(update=change)
    return Study("study", PLANNED, results, {})


ODD = "resnet18-cifar10-r0.2-s43"
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "recipes": ({"training_hash": "f" * 64}, "in 11 runs, ffffffffffff in"),
    "datasets": ({"part": "data", "fingerprint": "a" * 64}, "000000000000 in 11 runs, aaaaaaaaaaaa in"),
    "precisions": ({"part": "hardware", "precision": "bf16"}, "fp32 in 11 runs, bf16 in"),
    "git states": ({"part": "environment", "git_commit": None}, "0123abc in 11 runs, unknown in"),
}


def test_equal_results_are_not_refused() -> None:
    """Nor is what may differ: host, hardware, times, attempts."""
    whole = study(ODD, part="hardware", host="elsewhere", gpus=["H100"])
    refuse_mixed(whole)
    assert mixed_note(whole.results.values()) == ()


@pytest.mark.parametrize("aspect", OTHERS)
def test_one_odd_result_is_refused_by_name(aspect: str) -> None:
    """The error names the dataset, what differs, the run, and what to do."""
    change, words = OTHERS[aspect]
    with pytest.raises(MixedError) as error:
        refuse_mixed(study(ODD, **change))
    said = str(error.value)
    assert f"\n  cifar10: different {aspect}: " in said
    assert f"{words} {ODD}" in said
    assert "--allow-mixed" in said
    assert "tinyimagenet" not in said


def test_own_networks_of_two_codes_are_refused_and_ours_beside_them_are_not() -> None:
    """A result whose network is one of ours has no such code, and fits beside any."""
    own = [run.run.id for run in PLANNED if run.run.id.startswith("vit-cifar10")]
    refuse_mixed(study(*own, part="environment", own_code="a" * 16))
    mixed = study(*own, part="environment", own_code="a" * 16)
    odd = mixed.results[own[0]]
    environment = odd.environment.model_copy(update={"own_code": "b" * 16})
    results = {**mixed.results, own[0]: odd.model_copy(update={"environment": environment})}
    words = rf"cifar10: different codes of own networks: a+ in \d runs, b+ in {own[0]}"
    with pytest.raises(MixedError, match=words):
        refuse_mixed(Study("study", PLANNED, results, {}))


def test_architectures_are_compared_on_one_dataset() -> None:
    """All of one architecture with other data than the other's is refused too: they are set side by side."""
    vit = [run.run.id for run in PLANNED if run.run.id.startswith("vit-cifar10")]
    with pytest.raises(MixedError, match=r"cifar10: different datasets: .* in vit-cifar10-r0\.1-s42, .* and 1 more"):
        refuse_mixed(study(*vit, part="data", fingerprint="b" * 64))


def test_datasets_and_variants_may_differ() -> None:
    """Each dataset has its own fingerprint, each variant its own recipe."""
    variants = [
        run
        for rate in (0.1, 0.2)
        for run in planned_grid(PAIRS, [0.1], variant=f"dropout={rate}", training=Recipe(epochs=4, dropout=rate))
    ]
    results: dict[str, Result] = {}
    for run in variants:
        result = make_result(run)
        data = result.data.model_copy(update={"fingerprint": run.run.dataset})
        results[run.run.id] = result.model_copy(update={"data": data})
    assert "different recipes" in mixed_note(results.values())[0]
    refuse_mixed(Study("study", variants, results, {}))
