"""Results that do not belong in one table: different recipes, data, precisions or states of the code.

Results of another recipe or dataset than planned are stale, so they are missing and never reach this module. It
compares what the plan does not fix: the code, the precision that `auto` chose, data not prepared on this machine.
"""

from collections.abc import Callable, Iterable

from analysis.errors import AnalysisError
from analysis.study import Study
from trainer.records.result import Environment, Result

NAMED = 5  # run ids listed for each of the rarer kinds
MARK = "†"


class MixedError(AnalysisError):
    """Results of one table differ in an aspect that must be equal."""


def git_state(environment: Environment) -> str:
    """Name the code a run was trained with: its commit, and whether it had changes."""
    if environment.git_commit is None:
        return "unknown"
    return environment.git_commit[:12] + (" with changes" if environment.git_dirty else "")


# What is compared, None where a result has nothing to compare.
ASPECTS: dict[str, Callable[[Result], str | None]] = {
    "recipes": lambda result: result.training_hash[:12],
    "datasets": lambda result: result.data.fingerprint[:12],
    "precisions": lambda result: " then ".join(result.hardware.precisions),
    "git states": lambda result: git_state(result.environment),
    "codes of own networks": lambda result: result.environment.own_code,
}


def mixtures(results: Iterable[Result]) -> list[str]:
    """Describe each aspect in which these results differ, a sentence each; empty if they belong together."""
    results = list(results)
    sentences = []
    for aspect, kind_of in ASPECTS.items():
        kinds: dict[str, list[str]] = {}
        for result in results:
            kind = kind_of(result)
            if kind is not None:
                kinds.setdefault(kind, []).append(result.run.id)
        if len(kinds) > 1:
            ordered = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
            counts = [f"{ordered[0][0]} in {len(ordered[0][1])} runs"]
            counts += [f"{kind} in {named(runs)}" for kind, runs in ordered[1:]]
            sentences.append(f"different {aspect}: {', '.join(counts)}")
    return sentences


def mixed_note(results: Iterable[Result]) -> tuple[str, ...]:
    """Return the footnote for a table or figure of these results; none if they belong together."""
    sentences = mixtures(results)
    return (f"{MARK} Mixed: {'; '.join(sentences)}.",) if sentences else ()


def refuse_mixed(study: Study) -> None:
    """Raise MixedError if results of one dataset and variant, which are shown side by side, differ in an aspect."""
    together: dict[tuple[str, str], list[Result]] = {}
    for group, runs in study.groups.items():
        of_group = [study.results[run.run.id] for run in runs if run.run.id in study.results]
        together.setdefault((group.dataset, group.variant), []).extend(of_group)
    found: dict[str, list[str]] = {}
    for (dataset, variant), results in together.items():
        for sentence in mixtures(results):
            found.setdefault(sentence, []).append(f"{dataset}, {variant}" if variant else dataset)
    if found:
        lines = [f"{' and '.join(where)}: {sentence}" for sentence, where in found.items()]
        raise MixedError(
            "results that must not be mixed in one table; train the odd ones again, or pass '--allow-mixed' to have "
            "them marked\n  " + "\n  ".join(lines)
        )


def named(runs: list[str]) -> str:
    """List the first few runs by id, and count the rest."""
    beyond = len(runs) - NAMED
    return ", ".join(runs[:NAMED]) + (f" and {beyond} more" if beyond > 0 else "")
