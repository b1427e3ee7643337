"""A benchmark as a picture: what each process reached, and how ours grows."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.records import LIGHTNING, OURS, GrowthSample, Program, Results
from benchmarks.report import TITLES, measured, network, shapes, sides
from benchmarks.summary import Spread, combined_images_per_second, images_per_second

# analysis/figures/style.py's look, which is not imported: benchmarks know no results of sweeps.
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
}
MM = 1 / 25.4
WIDTH_MM, HEIGHT_MM, ROW_MM, DPI = 160.0, 62.0, 6.0, 200


def picture(results: Results) -> bytes:
    """Draw the results as a PNG, without date and version: equal results, equal bytes."""
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
    """Draw a bar to each side's median and a point for each round."""
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
    axes.set_xlim(left=0)
    axes.margins(x=0.12)
    axes.set_xlabel("Images trained and validated a second")
    axes.set_title(results.machine.gpu or f"{results.machine.cpu}, {results.machine.cores} cores")


def _against_images(axes: Axes, growth: Sequence[GrowthSample]) -> None:
    for place, (label, samples) in enumerate(_groups(growth)):
        alone = [(one.measurements[0], one) for one in samples if len(one.measurements) == 1]
        points = sorted((found.trained, sum(found.train_seconds) / len(found.train_seconds)) for found, _ in alone)
        axes.plot(*zip(*points, strict=True), marker=MARKERS[place % 4], color=COLOURS[OURS], mfc="none", label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("Training images")
    axes.set_ylabel("Seconds a training epoch")
    axes.set_title("Time against ratio, ours")
    axes.legend()


def _against_processes(axes: Axes, growth: Sequence[GrowthSample]) -> None:
    for place, (label, samples) in enumerate(_groups(growth)):
        most = max(one.images for one in samples)
        points = sorted(
            {
                len(one.measurements): combined_images_per_second(one.measurements)
                for one in samples
                if one.images == most
            }.items()
        )
        first = points[0][1]
        speeds = [(count, value / first) for count, value in points]
        axes.plot(*zip(*speeds, strict=True), marker=MARKERS[place % 4], color=COLOURS[OURS], mfc="none", label=label)
    axes.set_xticks(sorted({len(one.measurements) for one in growth}))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Processes side by side")
    axes.set_ylabel("Images/s together, against one")
    axes.set_title("Time against workers, ours")
    axes.legend()


def _groups(growth: Sequence[GrowthSample]) -> list[tuple[str, list[GrowthSample]]]:
    keys = dict.fromkeys((one.shape, one.precision) for one in growth)
    return [
        (
            f"{' '.join(network(shape))}, {precision}",
            [one for one in growth if (one.shape, one.precision) == (shape, precision)],
        )
        for shape, precision in keys
    ]
