"""runs.csv, history.csv and missing.csv: UTF-8, a header, full precision; empty where a value is unknown."""

import csv
import io
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path

from analysis.export.runs import in_plan_order
from analysis.load import COLUMNS, HISTORY_COLUMNS, history_columns, run_row
from analysis.study import Study
from trainer.records import Result

MISSING = "missing.csv"


def names(study: Study) -> list[str]:
    """Name the files beside missing.csv."""
    return ["runs.csv", "history.csv"]


def contents(study: Study, folder: Path, tick: Callable[[], None]) -> Generator[bytes, None, None]:
    """Give a row a run, then a row a run and epoch."""
    results = in_plan_order(study)
    yield _csv(COLUMNS, (tuple(run_row(result).values()) for result in results))
    yield _csv(HISTORY_COLUMNS, _histories(results, tick))


def missing(study: Study) -> bytes:
    """Give the planned runs without a result, and why, as CSV."""
    planned = (run for run in study.planned if run.run.id in study.missing)
    return _csv(
        ("id", "architecture", "dataset", "ratio", "seed", "variant", "reason"),
        ((*run.run.model_dump().values(), run.variant, study.missing[run.run.id]) for run in planned),
    )


def _histories(results: Sequence[Result], tick: Callable[[], None]) -> Iterator[tuple[object, ...]]:
    for result in results:
        yield from zip(*history_columns([result]).values(), strict=True)
        tick()


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    buffer = io.BytesIO()
    text = io.TextIOWrapper(buffer, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    text.flush()
    return buffer.getvalue()
