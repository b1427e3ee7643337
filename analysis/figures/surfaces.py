"""Figures 4.2, 4.5, 4.8, 4.11 and their like: a metric as a surface over epoch and ratio, the mean of the seeds.

Each trained ratio is a line; the surface between two neighbours is drawn only where both have results, so a missing one
leaves a hole. A white line crosses it at each epoch at which the learning rate drops.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis import chapter
from analysis.figures.curves import cut_note, loss_ceiling, mean_curve, trend
from analysis.figures.plan import NO_RUN, FigurePlan, drops, notes_on, ratio_label, with_results
from analysis.figures.style import COLOUR_MAP, FAINT, INCOMPLETE_DASHES, INK, METRIC_LABELS, apart, new_figure
from analysis.study import Cell, Group, Study
from trainer.records.result import Metric

Floats = NDArray[np.float64]

METRICS: tuple[Metric, ...] = ("val_accuracy", "val_loss", "train_accuracy", "train_loss")
HEIGHT_MM = 150.0
TURNED = "The ratio axes of the losses are turned round, so that the high end is at the back there too."
# White with a black outline shows on every colour of the map, and in grey.
SEAM: dict[str, Any] = {
    "color": "white",
    "linewidth": 0.8,
    "path_effects": [Stroke(linewidth=1.7, foreground="black"), Normal()],
}
FALL: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3, "color": "white", "markeredgecolor": INK}
LABEL_GAP = 0.12  # of the ratio axis, between two labels
MOST_COLUMNS = 200  # of a surface: more could not be told apart in print


def surface_plan(study: Study, group: Group, number: int) -> FigurePlan:
    """Plan figure 4.N: a group's four metrics."""
    cells = study.cells(group)
    return FigurePlan(
        number=f"4.{number}",
        variant=group.variant,
        caption=chapter.surface_caption(group.architecture, group.dataset, group.variant),
        notes=(TURNED, *notes_on(study, [group]), *cut_note(cells, METRICS)),
        alt="Four surfaces over epoch and dataset ratio: validation accuracy, validation loss, training accuracy, "
        "training loss. " + trend(group.title, cells, METRICS),
        paint=lambda: _paint(cells),
    )


def _paint(cells: Sequence[Cell]) -> Figure:
    figure = new_figure(HEIGHT_MM, layout=None)
    for place, metric in enumerate(METRICS):
        row, column = divmod(place, 2)
        left, bottom = 0.48 * column - 0.01, 0.515 - 0.485 * row
        title = METRIC_LABELS[metric]
        if not with_results(cells):
            figure.text(left + 0.25, bottom + 0.24, f"{title.partition(' (')[0]}: {NO_RUN}", ha="center", color=FAINT)
            continue
        _paint_surface(figure.add_axes((left, bottom, 0.47, 0.45), projection="3d"), cells, metric)
        figure.text(left + 0.03, bottom + 0.465, title, fontsize=8, va="top")
    if drops(with_results(cells)):
        figure.legend(handles=[Line2D([], [], **SEAM, label="learning rate drops")], loc="lower left")
    return figure


def _paint_surface(axes: Any, cells: Sequence[Cell], metric: Metric) -> None:
    """Draw one panel from back to front. axes: an Axes3D, for which matplotlib has no types.

    Left to itself, matplotlib orders whole surfaces and lines by their middles, which hides most lines.
    """
    depths = np.log10([cell.ratio for cell in cells])
    curves = [mean_curve(cell, metric).mean if cell.results else None for cell in cells]
    present = [curve for curve in curves if curve is not None]
    loss = not metric.endswith("accuracy")
    low, high = _heights(present, loss)
    rows = [None if curve is None else np.minimum(curve, high) for curve in curves]
    epochs = max(len(curve) for curve in present)
    milestones = drops(with_results(cells))
    axes.computed_zorder = False
    order = range(len(cells)) if loss else range(len(cells) - 1, -1, -1)  # the ratio axis of losses is reversed
    for layer, (place, before) in enumerate(zip(order, [None, *order], strict=False)):
        row, behind = rows[place], None if before is None else rows[before]
        if row is not None and behind is not None and before is not None:
            _paint_strip(axes, (depths[before], depths[place]), (behind, row), (low, high), milestones, 4.0 * layer)
        for at in (before, place):
            line = None if at is None else rows[at]
            if line is not None and at is not None:
                dashes = "-" if cells[at].complete else INCOMPLETE_DASHES
                point = {"marker": "o", "markersize": 2.5} if len(line) < 2 else {}
                deep = np.full(len(line), depths[at])
                look = {"color": INK, "linewidth": 0.5, "linestyle": dashes, "rasterized": True, **point}
                axes.plot(np.arange(len(line)), deep, line, zorder=4.0 * layer + 3, **look)
        if row is not None and all(rows[near] is None for near in (place - 1, place + 1) if 0 <= near < len(rows)):
            falls = [epoch for epoch in milestones if epoch < len(row)]  # no surface to draw them on
            deep = np.full(len(falls), depths[place])
            axes.plot(falls, deep, row[falls], zorder=4.0 * layer + 3, **FALL)
    _ratio_axis(axes, cells, depths, turned=loss)
    axes.set_xlim(0, max(epochs - 1, 1))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_zlim(low, high)
    axes.zaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_xlabel("Epoch", labelpad=-5)
    axes.set_ylabel("Dataset ratio", labelpad=7)
    axes.set_box_aspect((1.15, 1.2, 0.85), zoom=0.94)
    axes.view_init(elev=30, azim=-50)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.set_facecolor("white")
        axis.pane.set_edgecolor("#cccccc")
        axis._axinfo["grid"].update(color="#e4e4e4", linewidth=0.5)


def _heights(curves: Sequence[Floats], loss: bool) -> tuple[float, float]:
    """Return the limits of the vertical axis."""
    ceiling = loss_ceiling(curves) if loss else None
    low = min(float(curve.min()) for curve in curves)
    high = max(float(curve.max()) for curve in curves) if ceiling is None else ceiling
    low = 0.0 if low < 0.4 * high else low
    return (low, high) if high > low else (low - 0.1, low + 0.1)


def _paint_strip(
    axes: Any,
    depths: tuple[float, float],
    rows: tuple[Floats, Floats],
    limits: tuple[float, float],
    milestones: Sequence[int],
    layer: float,
) -> None:
    """Draw the surface between two neighbouring ratios, with the learning rate drops."""
    epochs = min(map(len, rows))
    if epochs < 2:
        return
    columns = np.unique(np.linspace(0, epochs - 1, min(epochs, MOST_COLUMNS)).round().astype(int))
    heights = np.array([row[columns] for row in rows])
    middles = (heights[:, :-1] + heights[:, 1:]).mean(axis=0)[None] / 2
    colours = matplotlib.colormaps[COLOUR_MAP](Normalize(*limits)(middles))
    across, deep = np.meshgrid(columns, depths)
    axes.plot_surface(
        across,
        deep,
        heights,
        facecolors=colours,
        rcount=2,
        ccount=len(columns),
        shade=False,
        linewidth=0,
        antialiased=False,
        rasterized=True,
        zorder=layer,
    )
    for epoch in milestones:
        if epoch < epochs:
            ends = [row[epoch] for row in rows]
            axes.plot([epoch, epoch], depths, ends, **SEAM, rasterized=True, zorder=layer + 1)


def _ratio_axis(axes: Any, cells: Sequence[Cell], depths: Floats, *, turned: bool) -> None:
    """Tick the logarithmic axis at the ratios; incomplete ones have priority for a label."""
    low, high = float(depths[0]), float(depths[-1])
    room = 0.0 if high > low else 0.5
    limits = (low - room, high + room)
    axes.set_ylim(*(reversed(limits) if turned else limits))
    lacking = [place for place, cell in enumerate(cells) if not cell.complete]
    named = apart(list(depths), lacking, LABEL_GAP * max(high - low, 1e-9))
    axes.set_yticks(depths, [ratio_label(cell) if place in named else "" for place, cell in enumerate(cells)])
    for axis, pad in (("x", -4), ("y", -2), ("z", -1)):
        axes.tick_params(axis=axis, pad=pad, labelsize=6)
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")
