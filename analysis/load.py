"""Read result files: one as a record, a sweep's as a DataFrame with a row per run or per run and epoch.

Owns which result.json is accepted, the errors for damaged ones, and the columns. The planner decides which results
are stale.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError
from trainer.models.catalog import short_name
from trainer.records.files import RecordError, read_json
from trainer.records.result import METRICS, History, Result
from trainer.records.run import Run, RunFolder

if TYPE_CHECKING:
    import pandas

# Also the columns of a frame without rows.
COLUMNS: tuple[str, ...] = (
    *("id", "architecture", "dataset", "ratio", "seed", "variant"),
    *("train_samples", "val_samples", "classes", "parameters", "training_hash", "data_fingerprint"),
    *(column for metric in METRICS for column in (metric, f"{metric}_epoch")),
    *("train_seconds", "evaluation_seconds", "total_seconds"),
    *("host", "cpu", "gpus", "pool", "device", "precision", "attempts", "attempt", "job"),
    *("git_commit", "git_dirty", "torch", "cuda"),
)
HISTORY_COLUMNS: tuple[str, ...] = (
    *("id", "architecture", "dataset", "ratio", "seed", "variant", "epoch"),
    *History.model_fields,
)
NAMED_IN_AN_ERROR = 10


def load(path: str | Path) -> "pandas.DataFrame":
    """Load a row per finished run: best value and epoch of each metric, sizes, times, hardware.

    path: <output>/<sweep>, as in `analysis.load("runs/thesis")`. Every run with a result.json has a row, even if the
    plan no longer holds it; training_hash and data_fingerprint tell such rows apart. Raises AnalysisError if path is
    not a sweep's folder or results are damaged, naming them: a row silently absent would make the means wrong.
    """
    import pandas  # here: takes 0.3 s to import, and reading single results does not need it

    return pandas.DataFrame([run_row(result) for result in _results(path)], columns=list(COLUMNS))


def load_history(path: str | Path) -> "pandas.DataFrame":
    """Load a row per epoch of each finished run: losses, accuracies, learning rate, seconds.

    path, runs and errors: as for load().
    """
    import pandas

    return pandas.DataFrame(history_columns(_results(path)), columns=list(HISTORY_COLUMNS))


def identity_row(result: Result) -> dict[str, object]:
    """Return the columns that identify a run."""
    return {**result.run.model_dump(), "variant": variant_of(result.run)}


def run_row(result: Result) -> dict[str, object]:
    """Return a run's values of COLUMNS, by name."""
    hardware, environment = result.hardware, result.environment
    last = result.attempts[-1] if result.attempts else None
    row: dict[str, object] = {
        **identity_row(result),
        "train_samples": result.data.train_samples,
        "val_samples": result.data.val_samples,
        "classes": result.data.classes,
        "parameters": result.parameters,
        "training_hash": result.training_hash,
        "data_fingerprint": result.data.fingerprint,
        **result.timing.model_dump(),
        **hardware.model_dump(),
        "gpus": gpu_names(hardware.gpus),
        "attempts": len(result.attempts),
        "attempt": last.number if last else None,
        "job": last.job if last else None,
        "git_commit": environment.git_commit,
        "git_dirty": environment.git_dirty,
        "torch": environment.torch,
        "cuda": environment.cuda,
    }
    for metric in METRICS:
        best = getattr(result.best, metric)
        row[metric] = best.value
        row[f"{metric}_epoch"] = best.epoch
    return {name: row[name] for name in COLUMNS}


def history_columns(results: Iterable[Result]) -> dict[str, list[object]]:
    """Concatenate the histories of runs, as the values of each of HISTORY_COLUMNS."""
    # Column by column for each run: row by row takes three times as long.
    columns: dict[str, list[object]] = {name: [] for name in HISTORY_COLUMNS}
    for result in results:
        for name, value in identity_row(result).items():
            columns[name] += [value] * result.history.epochs
        columns["epoch"] += range(result.history.epochs)
        for name in History.model_fields:
            columns[name] += getattr(result.history, name)
    return columns


def gpu_names(gpus: Sequence[str]) -> str:
    """Format a node's GPUs as the thesis does, "4x Tesla V100-PCIE-16GB"; "" if there are none."""
    return ", ".join(f"{count}x {name}" for name, count in Counter(gpus).items())


def variant_of(run: Run) -> str:
    """Return the part of a run's id after architecture, dataset, ratio and seed; normally ""."""
    beyond_names = run.id.removeprefix(f"{short_name(run.architecture)}-{run.dataset}-")
    _, _, beyond_seed = beyond_names.partition(f"-s{run.seed}")
    return beyond_seed.removeprefix("-")


def read_result(folder: RunFolder, expected: Run | None) -> tuple[Result | None, str | None]:
    """Read one run's result: (result, None), (None, what is wrong with it), or (None, None) if there is none.

    expected: the run it must describe; with None, its id must be the folder's name.
    """
    path = folder.result
    try:
        result = read_json(path, Result)
    except RecordError as error:
        # No folder: the caller names the run, and paths differ from machine to machine.
        return None, f"result.json {error.reason}"
    if result is None:
        return None, None
    if expected is None and result.run.id != folder.path.name:
        return None, f"result.json is of another run: {result.run.id}"
    if expected is not None and result.run != expected:
        return None, f"result.json is of another run: {_described(result.run)}; planned is {_described(expected)}"
    return result, None


def _results(path: str | Path) -> list[Result]:
    """Read every result in a sweep's folder, sorted by architecture, dataset, ratio, seed."""
    runs = Path(path) / "runs"
    if not runs.is_dir():
        raise AnalysisError(f"{path}: no folder 'runs' in it; expected the folder of a sweep, <output>/<sweep>")
    results: list[Result] = []
    problems: list[str] = []
    for folder in sorted(child for child in runs.iterdir() if child.is_dir()):
        result, problem = read_result(RunFolder(folder), None)
        if result is not None:
            results.append(result)
        elif problem is not None:
            problems.append(f"{folder.name}: {problem}")
    if problems:
        raise AnalysisError(_damaged(runs, problems))
    results.sort(key=lambda result: (*_cell(result.run), result.run.id))
    return results


def _described(run: Run) -> str:
    return f"{run.id} ({run.architecture}, {run.dataset}, ratio {run.ratio}, seed {run.seed})"


def _damaged(runs: Path, problems: Sequence[str]) -> str:
    named = "\n  ".join(problems[:NAMED_IN_AN_ERROR])
    beyond = len(problems) - NAMED_IN_AN_ERROR
    return (
        f"{runs}: {len(problems)} damaged result(s); submit the sweep again to repeat these runs, "
        f"or move their folders away to load the others\n  {named}" + (f"\n  and {beyond} more" if beyond > 0 else "")
    )


def _cell(run: Run) -> tuple[str, str, float, int]:
    return run.architecture, run.dataset, run.ratio, run.seed
