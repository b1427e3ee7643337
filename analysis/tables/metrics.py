"""Tables from 4.5 on: the best metrics of one architecture and dataset, by seed, and their means over the seeds.

Owns what a cell prints for a missing run: -inf (accuracy), inf (loss) or nan (anything else) if it is planned and has
no usable result, and the notes name the run and the reason; nothing if it is not planned. A mean of fewer seeds than
planned has a star.
"""

from collections.abc import Callable, Sequence

from analysis import chapter
from analysis.formats import Table
from analysis.missing import missing_note
from analysis.mixed import MARK, mixed_note
from analysis.spread import spread
from analysis.study import Cell, Group, Study
from trainer.records.result import BestValue, Metric

METRIC_ROWS: tuple[tuple[str, Metric], ...] = (
    ("Val Acc", "val_accuracy"),
    ("Val Loss", "val_loss"),
    ("Train Acc", "train_accuracy"),
    ("Train Loss", "train_loss"),
)
UNKNOWN = "nan"
NOT_PLANNED = ""
STAR = "*"


def metrics_table(study: Study, group: Group, number: int) -> Table:
    """Build table 4.N: the best of each metric and its epoch, a row per seed, a column per ratio."""
    cells = study.cells(group)
    planned = {(cell.ratio, run.run.seed) for cell in cells for run in cell.planned}
    best = {(cell.ratio, result.run.seed): result.best for cell in cells for result in cell.results}
    seeds = sorted({seed for _, seed in planned})

    def row(label: str, seed: int, metric: Metric, show: Callable[[BestValue], str], absent: str) -> tuple[str, ...]:
        def text(ratio: float) -> str:
            if (ratio, seed) not in planned:
                return NOT_PLANNED
            found = best.get((ratio, seed))
            return show(getattr(found, metric)) if found else absent

        return (f"{label} (S{seed})", *(text(cell.ratio) for cell in cells))

    rows: list[tuple[str, ...]] = []
    for title, metric in METRIC_ROWS:
        rows += [row(title, seed, metric, lambda best: two_decimals(best.value), nothing(metric)) for seed in seeds]
        rows += [row(f"Epoch ({title})", seed, metric, lambda best: str(best.epoch), UNKNOWN) for seed in seeds]
    header = ("Metric / Dataset Ratio", *(ratio_text(cell.ratio) for cell in cells))
    return _table(study, group, (f"table-4.{number}", f"4.{number}"), chapter.metrics_caption, header, rows)


def means_table(study: Study, group: Group, number: int) -> Table:
    """Build table 4.N of means: a row per ratio, mean ± sample standard deviation, and the number of seeds."""
    cells = study.cells(group)
    rows = []
    for cell in cells:
        means = (_mean_text(cell, metric) for _, metric in METRIC_ROWS)
        count = f"{len(cell.results)}" + ("" if cell.complete else f" of {len(cell.planned)}")
        rows.append((ratio_text(cell.ratio), f"{cell.train_samples:,}", *means, count))
    partial = [f"{ratio_text(cell.ratio)} ({cell.seeds})" for cell in cells if cell.results and not cell.complete]
    return _table(
        study,
        group,
        (f"table-4.{number}-mean", f"4.{number} (means)"),
        chapter.means_caption,
        ("Ratio", "Images", *(title for title, _ in METRIC_ROWS), "Seeds"),
        rows,
        (f"{STAR} Fewer seeds than planned at ratio {', '.join(partial)}.",) if partial else (),
    )


def nothing(metric: Metric) -> str:
    """Return what the thesis prints for a metric without a value."""
    return "-inf" if metric.endswith("accuracy") else "inf"


def two_decimals(value: float) -> str:
    """Format a value with two decimals, never as -0.00."""
    printed = f"{value:.2f}"
    return "0.00" if printed == "-0.00" else printed


def ratio_text(ratio: float) -> str:
    """Format a ratio with all its digits and without an exponent: 0.075, 1.0."""
    return str(ratio) if "e" not in str(ratio) else f"{ratio:.20f}".rstrip("0")


def _mean_text(cell: Cell, metric: Metric) -> str:
    values = cell.best(metric)
    if not values:
        return nothing(metric)
    over_seeds = spread(values)
    printed = two_decimals(over_seeds.mean) + ("" if over_seeds.std is None else f" ± {two_decimals(over_seeds.std)}")
    return printed if cell.complete else printed + STAR


def _table(
    study: Study,
    group: Group,
    named: tuple[str, str],
    caption: Callable[[str, str, str, int], str],
    header: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    notes: tuple[str, ...] = (),
) -> Table:
    """Build a group's table with the notes on missing and mixed runs. named: (file name, number)."""
    runs, cells = study.groups[group], study.cells(group)
    mixed = mixed_note(result for cell in cells for result in cell.results)
    caption_text = caption(group.architecture, group.dataset, group.variant, len({run.run.seed for run in runs}))
    name, number = named
    return Table(
        name=f"{name}-{group.variant}" if group.variant else name,
        number=number,
        caption=f"{caption_text} {MARK}" if mixed else caption_text,
        header=header,
        rows=tuple(rows),
        notes=(*notes, *missing_note(runs, study.missing), *mixed),
    )
