"""The content of one run's page, read from its folder and result, as text; only the charts are markup.

A damaged or missing file is reported and costs only its own part of the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from markupsafe import Markup
from pydantic import BaseModel

from analysis.load import gpu_names
from analysis.mixed import git_state
from analysis.report.attempts import AttemptRow, attempt_rows
from analysis.report.charts import Line, epochs_chart
from analysis.report.logs import LINES, LINES_OF_DONE, LogTail, read_tail
from analysis.report.standing import duration, moment
from analysis.resumed import crossed, stretches
from analysis.study import Standing
from trainer.records.files import RecordError, read_json
from trainer.records.plan import PlannedRun
from trainer.records.recipe import Recipe
from trainer.records.result import Best, BestValue, History, Metric, Result
from trainer.records.run import Commitment, RunFolder
from trainer.records.status import ErrorRecord, Progress

Model = TypeVar("Model", bound=BaseModel)
Facts = tuple[tuple[str, str], ...]

METRIC_NAMES: dict[Metric, str] = {
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "train_accuracy": "training accuracy",
    "train_loss": "training loss",
}
CHARTS: tuple[tuple[str, Metric, Metric], ...] = (
    ("Accuracy", "val_accuracy", "train_accuracy"),
    ("Loss", "val_loss", "train_loss"),
)
TRACEBACK_CHARACTERS = 12_000


@dataclass(frozen=True)
class RunPage:
    """What a run's page shows, top to bottom.

    best: (metric, value, epoch). problems: what could not be read. log: relative to the sweep's folder.
    """

    run: PlannedRun
    status: Standing
    summary: Facts
    best: tuple[tuple[str, str, str], ...]
    best_note: str
    charts: tuple[Markup, ...]
    charts_note: str
    attempts: tuple[AttemptRow, ...]
    hardware: Facts
    environment: Facts
    data: Facts
    recipe_changes: Facts
    recipe: Facts
    log: str
    tail: LogTail | None
    error: ErrorRecord | None
    traceback: str
    problems: tuple[str, ...]


def read_page(folder: Path, run: PlannedRun, status: Standing, counted: Result | None) -> RunPage:
    """Read the page of a run. folder: <output>/<sweep>.

    counted: the run's result if it counts. One that does not, as of a stale run, is read from the folder and shown too.
    """
    files = RunFolder(folder / "runs" / run.run.id)
    problems: list[str] = []

    def read(path: Path, schema: type[Model]) -> Model | None:
        try:
            return read_json(path, schema)
        except RecordError as error:
            problems.append(f"{path.name} {error.reason}")
            return None

    result = counted or read(files.result, Result)
    progress = None if result else read(files.progress, Progress)
    error = None if result else read(files.error, ErrorRecord)
    commitment = None if result else read(files.commitment, Commitment)
    history = result.history if result else progress.history if progress else History()
    attempts = attempt_rows(files, result)
    newest = max((number for number in files.attempt_numbers()), default=status.attempt)
    log = files.log(newest)
    lines = LINES if result is None else LINES_OF_DONE
    tail = read_tail(log, lines) if newest else None
    if tail is None and status.log and Path(status.log) != log:
        log = Path(status.log)
        tail = read_tail(log, lines)
    recipe = result.training if result else run.training
    return RunPage(
        run=run,
        status=status,
        summary=_summary(run, status, result),
        best=_best(history),
        best_note="" if result or not history.epochs else f"Best so far, after {history.epochs} epochs.",
        charts=_charts(history, recipe),
        charts_note=_charts_note(recipe, history, finished=result is not None),
        attempts=attempts,
        hardware=_hardware(result),
        environment=_environment(result),
        data=_data(run, result, commitment),
        recipe_changes=_differences(recipe),
        recipe=tuple((name, written(getattr(recipe, name))) for name in Recipe.model_fields),
        log=relative(str(log), folder) if tail else "",
        tail=tail,
        error=error,
        traceback=_traceback(error),
        problems=tuple(problems),
    )


def relative(path: str, folder: Path) -> str:
    """Return a path relative to the sweep's folder, or only its name if it lies elsewhere."""
    for base in (folder, folder.absolute(), folder.resolve()):
        if Path(path).is_relative_to(base):
            return Path(path).relative_to(base).as_posix()
    return Path(path).name


def written(value: object) -> str:
    """Format a recipe value as in a sweep file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(written, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _summary(run: PlannedRun, status: Standing, result: Result | None) -> Facts:
    timing = result.timing if result else None
    facts = (
        ("architecture", run.run.architecture),
        ("dataset", run.run.dataset),
        ("ratio", f"{run.run.ratio}, {run.train_samples:,} training images as planned"),
        ("seed", str(run.run.seed)),
        ("variant", run.variant),
        ("epochs", f"{status.epoch} of {status.epochs}"),
        ("pool as planned", run.pool),
        ("job", status.job or ""),
        ("node", status.node or ""),
        ("training", duration(timing.train_seconds) if timing else ""),
        ("evaluation", duration(timing.evaluation_seconds) if timing else ""),
        ("in all", duration(timing.total_seconds) if timing else ""),
        ("last sign of life", f"{moment(status.updated)} UTC" if status.updated else ""),
    )
    return tuple((name, value) for name, value in facts if value)


def _best(history: History) -> tuple[tuple[str, str, str], ...]:
    if not history.epochs:
        return ()
    best = Best.of(history)
    found: list[tuple[str, BestValue]] = [(name, getattr(best, metric)) for metric, name in METRIC_NAMES.items()]
    return tuple((name, f"{value.value:.4f}", str(value.epoch)) for name, value in found)


def _charts(history: History, recipe: Recipe) -> tuple[Markup, ...]:
    if not history.epochs:
        return ()
    best = Best.of(history)
    charts = []
    for title, val, train in CHARTS:
        lines = [Line("val", "val", getattr(history, val)), Line("train", "train", getattr(history, train))]
        point: BestValue = getattr(best, val)
        charts.append(epochs_chart(title, lines, recipe.epochs, recipe.lr_milestones, (point.epoch, point.value)))
    return tuple(charts)


def _charts_note(recipe: Recipe, history: History, *, finished: bool) -> str:
    if not history.epochs:
        return "No epoch was recorded." if finished else "No epoch has been recorded yet."
    parts = ["The ring marks the best validation value"]
    passed = [str(milestone) for milestone in recipe.lr_milestones if milestone < recipe.epochs]
    if passed:
        at = f"epoch{'s' if len(passed) > 1 else ''} {' and '.join(passed)}"
        parts.append(f"dotted lines where the learning rate drops to {recipe.lr_decay:g} of what it was ({at})")
    return f"{'; '.join(parts)}."


def _hardware(result: Result | None) -> Facts:
    if result is None:
        return ()
    hardware = result.hardware
    return (
        ("host", hardware.host),
        ("processor", hardware.cpu),
        ("GPUs", gpu_names(hardware.gpus) or "none"),
        ("pool", hardware.pool),
        ("device", hardware.device),
        ("precision", hardware.precision),
        *((("computed on", stretches(result)),) if crossed(result) else ()),
    )


def _environment(result: Result | None) -> Facts:
    if result is None:
        return ()
    environment = result.environment
    return (
        ("Python", environment.python),
        ("torch", environment.torch),
        ("torchvision", environment.torchvision),
        ("CUDA", environment.cuda or "none"),
        ("git", git_state(environment)),
        ("Slurm job", environment.slurm_job_id or "none"),
    )


def _data(run: PlannedRun, result: Result | None, commitment: Commitment | None) -> Facts:
    if result is None:
        planned: Facts = (("training images", f"{run.train_samples:,} as planned"),)
        return (*planned, ("fingerprint", commitment.data_fingerprint)) if commitment else planned
    data = result.data
    return (
        ("training images", f"{data.train_samples:,}"),
        ("validation images", f"{data.val_samples:,}"),
        ("classes", f"{data.classes:,}"),
        ("parameters of the network", f"{result.parameters:,}"),
        ("fingerprint", data.fingerprint),
    )


def _differences(recipe: Recipe) -> Facts:
    usual = Recipe()
    names: Sequence[str] = tuple(Recipe.model_fields)
    return tuple(
        (name, f"{written(getattr(recipe, name))}, not {written(getattr(usual, name))}")
        for name in names
        if getattr(recipe, name) != getattr(usual, name)
    )


def _traceback(error: ErrorRecord | None) -> str:
    """Return the traceback; the middle of a long one is left out, as its ends show the entry point and the error."""
    text = error.traceback.strip() if error else ""
    if len(text) <= TRACEBACK_CHARACTERS:
        return text
    half = TRACEBACK_CHARACTERS // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
