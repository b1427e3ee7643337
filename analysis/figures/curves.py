"""Figures 4.3, 4.4 and their like: a metric over the epochs, a line per ratio, the mean of its seeds with a band.

Also owns what all figures over epochs share: mean and standard deviation of a cell, and the limit of a loss axis.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis import chapter
from analysis.figures.plan import NO_RUN, FigurePlan, drops, notes_on, with_results
from analysis.figures.style import (
    BAND_ALPHA,
    DROP_COLOUR,
    INCOMPLETE_DASHES,
    METRIC_LABELS,
    mark_drops,
    new_figure,
    ratio_colours,
    say,
)
from analysis.spread import spread
from analysis.study import Cell, Group, Study
from analysis.tables.metrics import ratio_text
from trainer.records.result import Metric

Floats = NDArray[np.float64]
Phase = Literal["validation", "training"]

PHASES: dict[Phase, tuple[Metric, Metric]] = {
    "validation": ("val_accuracy", "val_loss"),
    "training": ("train_accuracy", "train_loss"),
}
PANELS_MM = 74.0
LEGEND_LINE_MM = 4.0
OUTLYING = 3.0  # a loss axis is cut if its highest peak is this many times the usual highest loss


class Curve(NamedTuple):
    """Mean over the seeds and sample standard deviation, by epoch; std is None for one seed."""

    mean: Floats
    std: Floats | None


def mean_curve(cell: Cell, metric: Metric) -> Curve:
    """Average a cell's histories; the cell must have a result."""
    histories = np.asarray(cell.curves(metric), dtype=float)
    return Curve(histories.mean(axis=0), histories.std(axis=0, ddof=1) if len(histories) > 1 else None)


def loss_ceiling(means: Sequence[Floats]) -> float | None:
    """Return where to cut an axis of losses if a few peaks would flatten everything else, else None."""
    if not means:
        return None
    values = np.concatenate(means)
    usual = float(np.quantile(values, 0.98))
    return 1.15 * usual if values.max() > OUTLYING * usual > 0 else None


def cut_note(cells: Sequence[Cell], metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Note which loss axes end below the highest peak, and how high it is."""
    notes = []
    for metric in metrics:
        means = [mean_curve(cell, metric).mean for cell in with_results(cells)]
        ceiling = None if metric.endswith("accuracy") else loss_ceiling(means)
        if ceiling is not None:
            notes.append(
                f"The axis of {METRIC_LABELS[metric].partition(' (')[0].lower()} ends at {ceiling:.3g}; "
                f"the mean rises to {max(mean.max() for mean in means):.3g}."
            )
    return tuple(notes)


def curves_plan(study: Study, group: Group, number: int, phase: Phase) -> FigurePlan:
    """Plan figure 4.N: a group's validation or training curves."""
    cells, metrics = study.cells(group), PHASES[phase]
    return FigurePlan(
        number=f"4.{number}",
        variant=group.variant,
        caption=chapter.curves_caption(group.architecture, group.dataset, group.variant, phase),
        notes=(*notes_on(study, [group]), *cut_note(cells, metrics)),
        alt=f"Two panels, {phase} accuracy and {phase} loss over the epochs, a line a dataset ratio. "
        + trend(group.title, cells, metrics),
        paint=lambda: _paint(cells, metrics),
    )


def trend(title: str, cells: Sequence[Cell], metrics: Sequence[Metric]) -> str:
    """Describe in words how the best of each metric changes from the smallest to the largest ratio with a result."""
    cells = with_results(cells)
    if not cells:
        return f"{title}: {NO_RUN}."
    first, last = cells[0], cells[-1]
    parts = []
    for metric in metrics:
        name = METRIC_LABELS[metric].partition(" (")[0].lower()
        start, end = spread(first.best(metric)).mean, spread(last.best(metric)).mean
        parts.append(f"best {name} {start:.2f}" + ("" if first is last else f" to {end:.2f}"))
    ends = [f"{ratio_text(cell.ratio)} ({cell.train_samples:,} images, {cell.seeds})" for cell in (first, last)]
    where = f"ratio {ends[0]}" if first is last else f"from ratio {ends[0]} to {ends[1]}"
    return f"{title}, {where}: {', '.join(parts)}, mean of the seeds."


def epoch_axis(axes: Axes, epochs: int) -> None:
    room = max((epochs - 1) * 0.02, 0.5 if epochs < 3 else 0.0)
    axes.set_xlim(-room, epochs - 1 + room)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 3, 5, 10], min_n_ticks=1))


def plot_curve(axes: Axes, curve: Curve, colour: str, dashes: Any, label: str) -> None:
    """Draw a mean with its band; a single epoch as a point with an error bar."""
    epochs = np.arange(len(curve.mean))
    if len(epochs) == 1:
        axes.errorbar(epochs, curve.mean, yerr=curve.std, fmt="o", color=colour, capsize=2, label=label)
        return
    if curve.std is not None:
        low, high = curve.mean - curve.std, curve.mean + curve.std
        axes.fill_between(epochs, low, high, color=colour, alpha=BAND_ALPHA, linewidth=0)
    axes.plot(epochs, curve.mean, color=colour, linestyle=dashes, label=label)


def metric_axis(axes: Axes, metric: Metric, curves: Sequence[Curve]) -> None:
    """Set the limits of a metric's axis around these curves, bands included."""
    tops = [curve.mean if curve.std is None else curve.mean + curve.std for curve in curves]
    if metric.endswith("accuracy"):
        top = float(max(values.max() for values in tops))
        axes.set_ylim(0.0, min(top * 1.05, 1.01) if top > 0 else 1.0)
        return
    ceiling = loss_ceiling([curve.mean for curve in curves])
    top = ceiling if ceiling is not None else 1.05 * float(max(values.max() for values in tops))
    bottoms = [curve.mean if curve.std is None else curve.mean - curve.std for curve in curves]
    lowest = float(min(values.min() for values in bottoms))
    axes.set_ylim(0.0 if lowest < 0.4 * top else lowest - 0.05 * (top - lowest), top if top > 0 else 1.0)


def legend_label(cell: Cell) -> str:
    """Format a ratio for a legend: "0.4 (20,000), 2 of 3 seeds"."""
    label = f"{ratio_text(cell.ratio)} ({cell.train_samples:,})"
    return label if cell.complete else f"{label}, {cell.seeds}"


def _paint(cells: Sequence[Cell], metrics: Sequence[Metric]) -> Figure:
    shown = with_results(cells)
    figure = new_figure(max(PANELS_MM, (len(cells) + 3) * LEGEND_LINE_MM))
    panels = figure.subplots(1, len(metrics))
    colours = dict(zip([cell.ratio for cell in cells], ratio_colours(len(cells)), strict=True))
    milestones = drops(shown)
    for axes, metric in zip(panels, metrics, strict=True):
        axes.set_ylabel(METRIC_LABELS[metric])
        axes.set_xlabel("Epoch")
        if not shown:
            say(axes, NO_RUN)
            continue
        curves = [mean_curve(cell, metric) for cell in shown]
        for cell, curve in zip(shown, curves, strict=True):
            dashes = "-" if cell.complete else INCOMPLETE_DASHES
            plot_curve(axes, curve, colours[cell.ratio], dashes, legend_label(cell))
        metric_axis(axes, metric, curves)
        epoch_axis(axes, max(len(curve.mean) for curve in curves))
        mark_drops(axes, milestones)
    handles: list[Line2D] = []
    for cell in reversed(cells):
        line: Any = "none" if not cell.results else "-" if cell.complete else INCOMPLETE_DASHES
        marker = "o" if cell.results and cell.results[0].history.epochs == 1 else ""
        color, label = colours[cell.ratio], legend_label(cell)
        handles.append(Line2D([], [], color=color, linestyle=line, marker=marker, label=label))
    if milestones:
        drop = Line2D([], [], color=DROP_COLOUR, linewidth=0.9, linestyle=(0, (1, 1.5)), label="learning rate drops")
        handles.append(drop)
    figure.legend(handles=handles, loc="outside right upper", title="Ratio (images)", alignment="left")
    return figure
