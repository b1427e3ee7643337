"""The tables' numbers for programs: a tidy CSV of the means over seeds, and one of each run's provenance.

Not rounded; an absent value is an empty field.
"""

from collections.abc import Iterable, Sequence

from analysis import chapter
from analysis.formats import csv_text
from analysis.load import gpu_names
from analysis.mixed import git_state
from analysis.resumed import crossed, stretches
from analysis.spread import spread
from analysis.study import Group, Study
from trainer.records.result import METRICS, Result

SUMMARY_COLUMNS = (
    *("table", "architecture", "dataset", "variant", "ratio", "train_samples", "metric"),
    *("n", "planned", "mean", "std", "min", "max", "epoch_mean", "epoch_std"),
)
PROVENANCE_COLUMNS = (
    *("table", "run", "architecture", "dataset", "variant", "ratio", "seed", "used", "reason"),
    *("attempt", "attempts", "job", "host", "cpu", "gpus", "pool", "device", "precision", "stretches", "ended"),
    *("git_state", "python", "torch", "cuda", "training_hash", "data_fingerprint"),
)


def tidy_files(study: Study) -> dict[str, str]:
    """Return the text of summary.csv and provenance.csv, by name without extension."""
    return {
        "summary": csv_text(SUMMARY_COLUMNS, _summary(study)),
        "provenance": csv_text(PROVENANCE_COLUMNS, _provenance(study)),
    }


def _summary(study: Study) -> Iterable[Sequence[object]]:
    """Yield a row per cell and metric: mean, sample standard deviation, extremes, epochs of the best."""
    for group, number in _numbered(study):
        for cell in study.cells(group):
            for metric in METRICS:
                values, epochs = cell.best(metric), cell.best_epochs(metric)
                numbers: tuple[object, ...] = (None,) * 6
                if values:
                    value, epoch = spread(values), spread(epochs)
                    numbers = (value.mean, value.std, min(values), max(values), epoch.mean, epoch.std)
                yield (number, *group, cell.ratio, cell.train_samples, metric, len(values), len(cell.planned), *numbers)


def _provenance(study: Study) -> Iterable[Sequence[object]]:
    """Yield a row per planned run: whether its result counts or why not, and what it was made with."""
    for group, number in _numbered(study):
        for run in study.groups[group]:
            result = study.results.get(run.run.id)
            made = _made_with(result) if result else (None,) * (len(PROVENANCE_COLUMNS) - 9)
            reason = " ".join(study.missing.get(run.run.id, "").split())
            yield (number, run.run.id, *group, run.run.ratio, run.run.seed, result is not None, reason, *made)


def _made_with(result: Result) -> tuple[object, ...]:
    hardware, environment = result.hardware, result.environment
    last = result.attempts[-1] if result.attempts else None
    return (
        *(last.number if last else None, len(result.attempts), last.job if last else None),
        *(hardware.host, hardware.cpu, gpu_names(hardware.gpus), hardware.pool, hardware.device, hardware.precision),
        stretches(result) if crossed(result) else None,
        last.ended.isoformat() if last and last.ended else None,
        *(git_state(environment), environment.python, environment.torch, environment.cuda),
        *(result.training_hash, result.data.fingerprint),
    )


def _numbered(study: Study) -> Iterable[tuple[Group, str]]:
    numbers = chapter.number_pairs((group.architecture, group.dataset) for group in study.groups)
    for group in study.groups:
        yield group, f"4.{numbers[group.architecture, group.dataset]}"
