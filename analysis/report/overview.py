"""The top of the report: counts and matrix of states, what is missing and why, on what it ran."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from analysis.load import gpu_names
from analysis.mixed import git_state
from analysis.report.standing import counts, duration, moment
from analysis.study import Standing, Study
from trainer.records.plan import PlannedRun
from trainer.records.result import Result

NAMED = 12  # runs linked for each reason
# States before a run is done; such runs are not told apart by a reason.
ON_THE_WAY = ("running", "starting", "queued", "planned")


class Entry(NamedTuple):
    """A planned run and its status."""

    run: PlannedRun
    status: Standing


class Reason(NamedTuple):
    """Why runs have no result that counts. times: how many runs; runs: the first NAMED; beyond: how many more."""

    state: str
    cause: str
    message: str
    times: int
    runs: tuple[str, ...]
    beyond: int


class MatrixRow(NamedTuple):
    """The runs of one group: a tuple per ratio, seeds ascending."""

    title: str
    cells: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True)
class Overview:
    """What the top of the report shows."""

    counts: tuple[tuple[str, int], ...]
    done: int
    planned: int
    ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    matrix: tuple[MatrixRow, ...]
    reasons: tuple[Reason, ...]
    facts: tuple[tuple[str, tuple[str, ...]], ...]


def build_overview(study: Study, entries: Sequence[Entry]) -> Overview:
    """Summarise a sweep; entries: every planned run, in plan order."""
    ratios = tuple(sorted({entry.run.run.ratio for entry in entries}))
    statuses = [entry.status for entry in entries]
    return Overview(
        counts=tuple(counts(statuses)),
        done=len(study.results),
        planned=len(study.planned),
        ratios=ratios,
        seeds=tuple(sorted({entry.run.run.seed for entry in entries})),
        matrix=_matrix(study, entries, ratios),
        reasons=tuple(reasons(entries, study.missing)),
        facts=_facts(list(study.results.values()), statuses),
    )


def reasons(entries: Sequence[Entry], missing: Mapping[str, str]) -> list[Reason]:
    """Group the runs that have no result that counts by reason, the most serious states first."""
    alike: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        if entry.run.run.id in missing:
            state, cause = entry.status.state, entry.status.cause or ""
            # Equal failures differ in job numbers and addresses.
            same = "" if state in ON_THE_WAY else re.sub(r"\d+", "#", _message(entry, missing))
            alike.setdefault((state, cause, same), []).append(entry)
    order = ("failed", "stale", "interrupted", "cancelled", "done", *ON_THE_WAY)
    found = []
    for (state, cause, _), group in alike.items():
        ids = [entry.run.run.id for entry in group]
        message = "" if state in ON_THE_WAY else _message(group[0], missing)
        found.append(Reason(state, cause, message, len(ids), tuple(ids[:NAMED]), len(ids[NAMED:])))
    return sorted(found, key=lambda one: (order.index(one.state) if one.state in order else len(order), -one.times))


def _message(entry: Entry, missing: Mapping[str, str]) -> str:
    return entry.status.message or missing[entry.run.run.id]


def _matrix(study: Study, entries: Sequence[Entry], ratios: Sequence[float]) -> tuple[MatrixRow, ...]:
    by_id = {entry.run.run.id: entry for entry in entries}
    rows = []
    for group, runs in study.groups.items():
        cells: dict[float, list[Entry]] = {ratio: [] for ratio in ratios}
        for run in sorted(runs, key=lambda run: run.run.seed):
            cells[run.run.ratio].append(by_id[run.run.id])
        rows.append(MatrixRow(group.title, tuple(tuple(cells[ratio]) for ratio in ratios)))
    return tuple(rows)


def _facts(results: Sequence[Result], statuses: Sequence[Standing]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    newest = max((moment(status.updated) for status in statuses), default="")
    facts: list[tuple[str, tuple[str, ...]]] = []
    if results:
        trained = sum(result.timing.train_seconds for result in results)
        evaluated = sum(result.timing.evaluation_seconds for result in results)
        facts += [
            ("Time", (f"{duration(trained)} of training and {duration(evaluated)} of evaluation in finished runs",)),
            ("Hardware", _counted([_processors(result) for result in results])),
            ("Code", _counted([f"git {git_state(result.environment)}" for result in results])),
            ("Software", _counted([_software(result) for result in results])),
        ]
    if newest:
        facts.append(("Last sign of life", (f"{newest} UTC",)))
    return tuple(facts)


def _processors(result: Result) -> str:
    hardware = result.hardware
    gpus = "" if hardware.device.startswith("cpu") else gpu_names(hardware.gpus) or hardware.device
    return f"{gpus} with {hardware.cpu}" if gpus else f"{hardware.cpu}, no GPU"


def _software(result: Result) -> str:
    environment = result.environment
    cuda = f", CUDA {environment.cuda}" if environment.cuda else ""
    return f"torch {environment.torch}{cuda}, Python {environment.python}, {result.hardware.precision}"


def _counted(kinds: Sequence[str]) -> tuple[str, ...]:
    """List kinds with their number of runs, the most frequent first."""
    counted = Counter(kinds)
    ordered = sorted(counted, key=lambda kind: (-counted[kind], kind))
    return tuple(f"{kind} ({counted[kind]:,} run{'s' if counted[kind] > 1 else ''})" for kind in ordered)
