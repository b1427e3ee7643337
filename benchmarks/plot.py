"""The plot of a benchmark: speeds of all processes, and how ours grows."""

import io
from collections.abc import Sequence
from statistics import median
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.records import LIGHTNING, OURS, GrowthSample, Program, Results
from benchmarks.report import TITLES, measured, network, shapes, sides
from benchmarks.summary import (
    Spread,
    by_images,
    by_processes,
    combined_images_per_second,
    fit,
    grown,
    images_per_second,
)

# Copied from analysis/figures/style.py, not imported: benchmarks do not depend on analysis.
INK, FAINT = "#222222", "#767676"
COLOURS: dict[Program, str] = {OURS: "#0072B2", LIGHTNING: "#E69F00"}
MARKERS = ("o", "s", "^", "D")
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
MM = 1 / 25.4
WIDTH_MM, HEIGHT_MM, ROW_MM, DPI = 160.0, 62.0, 6.0, 200


def picture(results: Results) -> bytes:
    """Draw the results as a PNG without date and version: equal results give equal bytes."""
    with matplotlib.style.context(["default", STYLE]):
        rows = sum(len(sides(results, shape)) for shape in shapes(results))
        grown = bool(results.growth)
        heights = [18 + ROW_MM * rows, *([HEIGHT_MM] if grown else [])]
        figure = Figure(figsize=(WIDTH_MM * MM, sum(heights) * MM), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
        _speeds(figure.add_subplot(grid[0, :]), results)
        if grown:
            _against_images(figure.add_subplot(grid[1, 0]), results.growth)
            _against_processes(figure.add_subplot(grid[1, 1]), results.growth)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _speeds(axes: Axes, results: Results) -> None:
    """Draw a bar for each side's median and a mark for each round."""
    labels: list[str] = []
    for shape in shapes(results):
        for side in sides(results, shape):
            values = [images_per_second(found) for found in measured(results, shape, side)]
            middle, place = Spread.of(values).median, len(labels)
            axes.barh(place, middle, height=0.62, color=COLOURS[side.program], alpha=0.35)
            axes.plot(values, [place] * len(values), "|", color=COLOURS[side.program], markersize=7)
            axes.annotate(f"{middle:,.0f}", (max(values), place), (4, 0), textcoords="offset points", va="center")
            labels.append(f"{' '.join(network(shape))}, {TITLES[side.program]} {side.precision}")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.12 * max(images_per_second(sample.measurement) for sample in results.samples))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("Images trained and validated a second")
    axes.set_title(results.machine.gpu or f"{results.machine.cpu}, {results.machine.cores} cores")


def _against_images(axes: Axes, growth: Sequence[GrowthSample]) -> None:
    """Draw the epochs' times as points, and the line fitted to them."""
    for place, ((shape, precision), group) in enumerate(grown(growth).items()):
        alone = by_images(group)
        if not alone:
            continue
        line = fit(alone.values())
        images = [found.trained for found in alone.values()]
        axes.plot(images, [line.fixed_s + line.each_s * count for count in images], color=COLOURS[OURS], alpha=0.4)
        label = f"{' '.join(network(shape))}, {precision}"
        axes.plot(images, [median(found.train_seconds) for found in alone.values()], label=label, **_points(place))
    axes.set_xlim(left=0)
    _room(axes)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("Training images")
    axes.set_ylabel("Seconds a training epoch")
    axes.set_title("Time against ratio, ours")
    if axes.lines:
        axes.legend(loc="upper left")


def _against_processes(axes: Axes, growth: Sequence[GrowthSample]) -> None:
    """Draw the combined speed of concurrent processes as a multiple of one's."""
    counts: set[int] = set()
    for place, ((shape, precision), group) in enumerate(grown(growth).items()):
        speeds = {count: combined_images_per_second(found) for count, found in by_processes(group).items()}
        if not speeds:
            continue
        counts |= speeds.keys()
        first = next(iter(speeds.values()))
        label = f"{' '.join(network(shape))}, {precision}"
        axes.plot(list(speeds), [speed / first for speed in speeds.values()], label=label, **_points(place))
    axes.set_xticks(sorted(counts))
    axes.margins(x=0.15)
    _room(axes)
    axes.set_xlabel("Processes side by side")
    axes.set_ylabel("Images/s together, against one")
    axes.set_title("Time against workers, ours")
    if axes.lines:
        axes.legend(loc="upper left")


def _points(place: int) -> dict[str, Any]:
    return {"marker": MARKERS[place % len(MARKERS)], "color": COLOURS[OURS], "mfc": "none", "ls": ""}


def _room(axes: Axes) -> None:
    """Start the axis at zero, and leave room for the legend above the data."""
    axes.set_ylim(0, 1.3 * axes.dataLim.ymax if axes.lines else 1)
