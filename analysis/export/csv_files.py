"""runs.csv, history.csv and missing.csv: UTF-8, a header, full precision; empty where a value is unknown."""

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from analysis.export.runs import in_plan_order
from analysis.formats import csv_text
from analysis.load import COLUMNS, HISTORY_COLUMNS, history_columns, run_row
from analysis.study import Study
from trainer.records.result import Result

MISSING = "missing.csv"


def names(study: Study) -> list[str]:
    """Name the files beside missing.csv."""
    return ["runs.csv", "history.csv"]


def contents(study: Study, folder: Path, tick: Callable[[], None]) -> Generator[bytes, None, None]:
    """Yield the runs, one row each, and the history, one row per run and epoch."""
    results = in_plan_order(study)
    yield csv_text(COLUMNS, (tuple(run_row(result).values()) for result in results)).encode()
    yield csv_text(HISTORY_COLUMNS, _histories(results, tick)).encode()


def missing(study: Study) -> bytes:
    """Return the planned runs without a result, and why, as CSV."""
    planned = (run for run in study.planned if run.run.id in study.missing)
    return csv_text(
        ("id", "architecture", "dataset", "ratio", "seed", "variant", "reason"),
        ((*run.run.model_dump().values(), run.variant, study.missing[run.run.id]) for run in planned),
    ).encode()


def _histories(results: Sequence[Result], tick: Callable[[], None]) -> Iterator[tuple[object, ...]]:
    for result in results:
        yield from zip(*history_columns([result]).values(), strict=True)
        tick()
