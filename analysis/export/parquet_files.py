"""runs.parquet and history.parquet: the columns of csv_files with their types; text dictionary-encoded, no index."""

import io
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.export.runs import in_plan_order
from analysis.load import COLUMNS, HISTORY_COLUMNS, history_columns, run_row
from analysis.study import Study
from trainer.records.result import Result

if TYPE_CHECKING:
    import pyarrow

_TEXT = {"id", "architecture", "dataset", "variant", "training_hash", "data_fingerprint", "host", "cpu", "gpus", "pool"}
_TEXT |= {"device", "precision", "job", "git_commit", "torch", "cuda"}
_WHOLE = {"seed", "train_samples", "val_samples", "classes", "parameters", "attempts", "attempt", "epoch"}
Columns = Mapping[str, Sequence[object]]
RUNS_A_GROUP = 500  # runs of history in memory at a time: 90,000 rows of 180 epochs


def names(study: Study) -> list[str]:
    """Name the files beside missing.csv."""
    return ["runs.parquet", "history.parquet"]


def contents(study: Study, folder: Path, tick: Callable[[], None]) -> Generator[bytes, None, None]:
    """Yield the runs, one row each, and the history, one row per run and epoch."""
    results = in_plan_order(study)
    runs = [run_row(result) for result in results]
    yield _parquet(COLUMNS, [{name: [run[name] for run in runs] for name in COLUMNS}])
    yield _parquet(HISTORY_COLUMNS, _histories(results, tick))


def _histories(results: Sequence[Result], tick: Callable[[], None]) -> Iterator[Columns]:
    for first in range(0, len(results), RUNS_A_GROUP):
        group = results[first : first + RUNS_A_GROUP]
        yield history_columns(group)
        for _ in group:
            tick()


def _parquet(names: Sequence[str], groups: Iterable[Columns]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([(name, _type(name)) for name in names])
    buffer = io.BytesIO()
    with parquet.ParquetWriter(buffer, schema) as writer:
        for columns in groups:
            arrays = [pyarrow.array(columns[name], _type(name)) for name in names]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
    return buffer.getvalue()


def _type(column: str) -> "pyarrow.DataType":
    import pyarrow

    if column in _TEXT:
        return pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    if column == "git_dirty":
        return pyarrow.bool_()
    return pyarrow.int64() if column in _WHOLE or column.endswith("_epoch") else pyarrow.float64()
