"""The note that names runs without a usable result, and why."""

from collections.abc import Mapping, Sequence

from trainer.records.plan import PlannedRun

NAMED_PER_REASON = 40  # one table of the thesis's grid has 39 runs
REASON_CHARACTERS = 240


def missing_note(runs: Sequence[PlannedRun], missing: Mapping[str, str]) -> tuple[str, ...]:
    """Name the missing ones of these runs, grouped by reason; no note if none is missing."""
    by_reason: dict[str, list[str]] = {}
    for run in runs:
        if run.run.id in missing:
            by_reason.setdefault(_one_line(missing[run.run.id]), []).append(run.run.id)
    if not by_reason:
        return ()
    return (f"Missing: {'; '.join(f'{_names(ids)} ({reason})' for reason, ids in by_reason.items())}.",)


def _names(ids: Sequence[str]) -> str:
    beyond = len(ids) - NAMED_PER_REASON
    return ", ".join(ids[:NAMED_PER_REASON]) + (f" and {beyond} more" if beyond > 0 else "")


def _one_line(reason: str) -> str:
    words = " ".join(reason.split())
    return words if len(words) <= REASON_CHARACTERS else f"{words[: REASON_CHARACTERS - 3]}..."
