"""Result files read back: as records for the tables, as a DataFrame for everyone else.

Owns which result.json counts, and that none is passed over in silence. Whether a result is stale is the planner's to
say.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.files import RecordError, read_json
from trainer.records import METRICS, PlannedRun, Result, Run, RunFolder

if TYPE_CHECKING:
    import pandas

# Also the columns of a frame without rows.
COLUMNS: tuple[str, ...] = (
    *("id", "architecture", "dataset", "ratio", "seed", "variant"),
    *("train_samples", "val_samples", "classes", "parameters", "training_hash", "data_fingerprint"),
    *(column for metric in METRICS for column in (metric, f"{metric}_epoch")),
    *("train_seconds", "evaluation_seconds", "total_seconds"),
    *("host", "cpu", "gpus", "pool", "device", "precision", "attempts", "git_commit", "torch"),
)
NAMED_IN_AN_ERROR = 10


class AnalysisError(Exception):
    """What there is cannot be made into what was asked for; the base of every error of this package."""


def load(path: str | Path) -> "pandas.DataFrame":
    """Give one row a finished run: the best of each metric, its epoch, sizes, times, hardware.

    path: <output>/<sweep>, as in `analysis.load("runs/thesis")`. The rows are every run that has a result.json, also
    one that the plan no longer holds; training_hash and data_fingerprint tell such apart. Raises AnalysisError if path
    is no sweep's folder, and if results are damaged, naming them: a row absent in silence makes a wrong mean.
    """
    import pandas  # here: the tables need load_results only, and pandas takes 0.3 s to import

    runs = Path(path) / "runs"
    if not runs.is_dir():
        raise AnalysisError(f"{path}: no folder 'runs' in it; expected the folder of a sweep, <output>/<sweep>")
    results: list[Result] = []
    problems: list[str] = []
    for folder in sorted(child for child in runs.iterdir() if child.is_dir()):
        result, problem = _read(folder, None)
        if result is not None:
            results.append(result)
        elif problem is not None:
            problems.append(f"{folder.name}: {problem}")
    if problems:
        raise AnalysisError(_damaged(runs, problems))
    results.sort(key=lambda result: (*_cell(result.run), result.run.id))
    return pandas.DataFrame([_row(result) for result in results], columns=list(COLUMNS))


def load_results(folder: Path, planned: Sequence[PlannedRun]) -> tuple[dict[str, Result], dict[str, str]]:
    """Read the results of planned runs: (results by run id, the reason of each run that has none by run id).

    folder: <output>/<sweep>. Every planned run is in exactly one of the two. A result of the wrong run, as when a
    folder was copied, counts as damaged.
    """
    results: dict[str, Result] = {}
    problems: dict[str, str] = {}
    for planned_run in planned:
        run = planned_run.run
        result, problem = _read(folder / "runs" / run.id, run)
        if result is None:
            problems[run.id] = problem or "no result.json"
        else:
            results[run.id] = result
    return results, problems


def gpu_names(gpus: Sequence[str]) -> str:
    """Write a node's GPUs as the thesis does, "4x Tesla V100-PCIE-16GB"; "" if there are none."""
    return ", ".join(f"{count}x {name}" for name, count in Counter(gpus).items())


def variant_of(run: Run) -> str:
    """Give what a run's id says beyond architecture, dataset, ratio and seed; "" normally."""
    beyond_names = run.id.removeprefix(f"{run.architecture}-{run.dataset}-")
    _, _, beyond_seed = beyond_names.partition(f"-s{run.seed}")
    return beyond_seed.removeprefix("-")


def _read(folder: Path, expected: Run | None) -> tuple[Result | None, str | None]:
    """Read one run's result: (result, None), (None, what is wrong with it), or (None, None) if there is none.

    expected: the run it must be; without one, its id must be the folder's name.
    """
    path = RunFolder(folder).result
    try:
        result = read_json(path, Result)
    except RecordError as error:
        # The run is named beside the reason; the folder would differ from machine to machine.
        return None, f"result.json {str(error).removeprefix(f'{path}: ')}"
    if result is None:
        return None, None
    if expected is None and result.run.id != folder.name:
        return None, f"result.json is of another run: {result.run.id}"
    if expected is not None and result.run != expected:
        return None, f"result.json is of another run: {_described(result.run)}; planned is {_described(expected)}"
    return result, None


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


def _row(result: Result) -> dict[str, object]:
    hardware = result.hardware
    row: dict[str, object] = {
        **result.run.model_dump(),
        "variant": variant_of(result.run),
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
        "git_commit": result.environment.git_commit,
        "torch": result.environment.torch,
    }
    for metric in METRICS:
        best = getattr(result.best, metric)
        row[metric] = best.value
        row[f"{metric}_epoch"] = best.epoch
    return row
