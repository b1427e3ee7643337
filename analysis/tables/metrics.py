"""Tables 4.5 and on: the best metrics of one architecture and dataset, a row a seed, and their means over the seeds.

Owns what a cell says of a missing run: one that is planned and has no usable result prints -inf (accuracy), inf (loss)
or nan (anything else), and the notes under the table name the run and the reason; a cell that the plan does not hold is
empty. A mean of fewer seeds than planned carries a star.
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
    """Make table 4.N: the best of each metric and its epoch, a row a seed, a column a ratio."""
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
    """Make table 4.N of means, a row a ratio: mean ± sample standard deviation over the seeds, and of how many."""
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
    """Write the value of a metric of which there is none, as the thesis does."""
    return "-inf" if metric.endswith("accuracy") else "inf"


def two_decimals(value: float) -> str:
    """Write a value as the chapter does."""
    printed = f"{value:.2f}"
    return "0.00" if printed == "-0.00" else printed


def ratio_text(ratio: float) -> str:
    """Write a ratio as the chapter does, 0.075 and 1.0: all its digits, never with an exponent."""
    return str(ratio) if "e" not in str(ratio) else f"{ratio:.20f}".rstrip("0")


def _mean_text(cell: Cell, metric: Metric) -> str:
    values = cell.best(metric)
    if not values:
        return nothing(metric)
    found = spread(values)
    printed = two_decimals(found.mean) + ("" if found.std is None else f" ± {two_decimals(found.std)}")
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
    """Put a table of a group together, with what is missing from it or mixed in it; named: its file, its number."""
    runs, cells = study.groups[group], study.cells(group)
    mixed = mixed_note(result for cell in cells for result in cell.results)
    words = caption(group.architecture, group.dataset, group.variant, len({run.run.seed for run in runs}))
    name, number = named
    return Table(
        name=f"{name}-{group.variant}" if group.variant else name,
        number=number,
        caption=f"{words} {MARK}" if mixed else words,
        header=header,
        rows=tuple(rows),
        notes=(*notes, *missing_note(runs, study.missing), *mixed),
    )
