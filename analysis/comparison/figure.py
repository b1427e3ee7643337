"""The comparison figure: the best of each metric over training images, and the difference under it.

Ours are filled circles, published values hollow squares, side by side, with the standard deviation over seeds as bars.
The strip under a panel shows ours minus published with its 95 % interval, too small to see in the panel itself.
"""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.comparison.compare import ComparedCell, ComparedTable
from analysis.comparison.difference import half_interval
from analysis.comparison.verdicts import verdict
from analysis.figures.style import (
    COLOURS,
    FAINT,
    INK,
    METRIC_TITLES,
    apart,
    log_limits,
    log_ticks,
    new_figure,
    number,
    readable_ticks,
    render,
    settle,
    style,
)
from analysis.tables.metrics import METRIC_ROWS

HEIGHT_MM = 150.0
TICKS_APART = 0.13  # of the axis: the width of "100,000"
DODGE = 0.012  # of the axis, to either side: equal values must not hide each other
AGREES: dict[str, Any] = {"marker": "o", "markersize": 3, "color": COLOURS[0]}
DIFFERS: dict[str, Any] = {"marker": "D", "markersize": 4.5, "color": COLOURS[4]}
EMPTY: dict[str, Any] = {"linestyle": "none", "marker": "x", "color": FAINT, "clip_on": False}


def figure_files(name: str, table: ComparedTable) -> dict[str, bytes]:
    """Render the figure of a table; returns the bytes by file name."""
    figure = draw(table)
    return {f"{name}.pdf": render(figure, "pdf"), f"{name}.png": render(figure, "png")}


def draw(table: ComparedTable) -> Figure:
    """Draw the figure of a table with matched cells."""
    with style():
        return settle(_paint(table))


def alternative_text(table: ComparedTable) -> str:
    return (
        f"Four panels, the best validation and training accuracy and loss of {table.group.title} over training images, "
        f"ours beside published, with the differences under each. {verdict(table)}"
    )


def _paint(table: ComparedTable) -> Figure:
    figure = new_figure(HEIGHT_MM)
    grid = figure.subplots(4, 2, sharex=True, height_ratios=(3, 1.25, 3, 1.25))
    images = sorted({float(cell.train_samples) for cell in table.matched})
    limits = log_limits(images)
    span = math.log10(limits[1] / limits[0])
    places = [math.log10(value / limits[0]) / span for value in images]
    few = len(apart(places, (), TICKS_APART)) == len(images)
    ticks = images if few else readable_ticks(*limits, most=6)
    for place, (_, metric) in enumerate(METRIC_ROWS):
        row, column = 2 * (place // 2), place % 2
        cells = [cell for cell in table.matched if cell.metric == metric]
        values, strip = grid[row][column], grid[row + 1][column]
        _values(values, cells, span)
        _differences(strip, cells)
        values.set_title(METRIC_TITLES[metric])
        values.set_ylabel("accuracy" if metric.endswith("accuracy") else "loss (nats)")
        strip.set_ylabel("difference")
        for axes in (values, strip):
            axes.set_xscale("log")
            axes.set_xlim(limits)
            log_ticks(axes.xaxis, ticks, [number(tick) for tick in ticks])
    for axes in grid[3]:
        axes.set_xlabel("training images")
    figure.align_ylabels()
    figure.suptitle(f"{table.group.title}: ours and published", x=0.01, ha="left", fontsize=8.5)
    figure.legend(handles=_legend(table), loc="outside lower center", ncols=4)
    return figure


def _values(axes: Axes, cells: Sequence[ComparedCell], span: float) -> None:
    published = [(cell, cell.published) for cell in cells if cell.published is not None]
    ours = [(cell, cell.ours) for cell in cells if cell.ours is not None]
    for side, shift, look in (
        (published, 10 ** (span * DODGE), {"marker": "s", "color": INK, "markerfacecolor": "white"}),
        (ours, 10 ** (-span * DODGE), {"marker": "o", "color": COLOURS[0]}),
    ):
        if side:
            means, stds = [found.mean for _, found in side], [found.std or 0.0 for _, found in side]
            _bars(axes, [cell.train_samples * shift for cell, _ in side], means, stds, **look)
    axes.set_ylim(axes.get_ylim())
    for cell in cells:
        if cell.ours and cell.ours.n < cell.planned:
            height = _free_height(axes, cell)
            axes.text(
                cell.train_samples,
                height,
                f"{cell.ours.n} of {cell.planned}",
                transform=axes.get_xaxis_transform(),
                rotation=90,
                ha="center",
                va="bottom" if height < 0.5 else "top",
                fontsize=5.5,
                color=COLOURS[0],
            )
        elif cell.published is None:
            axes.plot([cell.train_samples], [_free_height(axes, cell)], transform=axes.get_xaxis_transform(), **EMPTY)


def _free_height(axes: Axes, cell: ComparedCell) -> float:
    """Return a height, as a share of the axes, at which text does not cover the cell's own points."""
    low, high = axes.get_ylim()
    values = [found.mean for found in (cell.ours, cell.published) if found]
    return 0.05 if values and sum(values) / len(values) > (low + high) / 2 else 0.95


def _differences(axes: Axes, cells: Sequence[ComparedCell]) -> None:
    axes.axhline(0, color=FAINT, linewidth=0.8)
    widest = 0.0
    for differs, look in ((False, AGREES), (True, DIFFERS)):
        shown = [(cell, cell.difference) for cell in cells if cell.difference and cell.differs == differs]
        values, halves = [delta.value for _, delta in shown], [half_interval(delta) or 0.0 for _, delta in shown]
        if shown:
            _bars(axes, [cell.train_samples for cell, _ in shown], values, halves, **look)
            widest = max(widest, *(abs(value) + half for value, half in zip(values, halves, strict=True)))
    if not any(cell.difference for cell in cells):
        axes.text(0.5, 0.6, "nothing to compare", transform=axes.transAxes, ha="center", color=FAINT)
    axes.set_ylim(-1.1 * (widest or 0.01), 1.1 * (widest or 0.01))
    axes.locator_params(axis="y", nbins=4)


def _bars(axes: Axes, x: Sequence[float], y: Sequence[float], half: Sequence[float], **look: Any) -> None:
    axes.errorbar(x, y, yerr=half, linestyle="none", capsize=1.6, elinewidth=0.8, **look)


def _legend(table: ComparedTable) -> list[Line2D]:
    handles = [
        Line2D([], [], linestyle="none", marker="o", color=COLOURS[0], label="ours (± std over seeds)"),
        Line2D([], [], linestyle="none", marker="s", color=INK, markerfacecolor="white", label="published (± std)"),
    ]
    if any(cell.published is None for cell in table.matched):
        handles.append(Line2D([], [], **EMPTY, label="published without a value"))
    if any(cell.differs for cell in table.cells):
        handles.append(Line2D([], [], linestyle="none", **DIFFERS, label="differs"))
    return handles
