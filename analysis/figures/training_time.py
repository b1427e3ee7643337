"""Figure 4.1: training time against ratio; marker by hardware, colour by architecture, panel by dataset."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import chapter
from analysis.figures.plan import NO_RUN, FigurePlan, notes_on, shortened, with_results
from analysis.figures.style import (
    INCOMPLETE_DASHES,
    INK,
    SHAPES,
    Look,
    apart,
    log_limits,
    log_ticks,
    new_figure,
    number,
    readable_ticks,
    say,
)
from analysis.load import gpu_names
from analysis.spread import spread
from analysis.study import Cell, Group, Study
from analysis.tables.metrics import ratio_text
from trainer.records.result import Hardware, Result

PANEL_MM = 52.0
LEGEND_ROW_MM = 4.5
LABEL_GAP = 0.045  # of the ratio axis, between two labels
LONGEST_NAME = 44
UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
COUNTED = (
    "Lines join the means of the seeds. Time is that of training and validating each epoch once, without what a run "
    "had to repeat after an interruption."
)


def training_time_plan(study: Study, variant: str, looks: dict[str, Look]) -> FigurePlan:
    """Plan figure 4.1 for the groups of one variant."""
    groups = [group for group in study.groups if group.variant == variant]
    datasets = chapter.in_order((group.dataset for group in groups), chapter.DATASET_ROWS)
    cells = {group: study.cells(group) for group in groups}
    return FigurePlan(
        number="4.1",
        variant=variant,
        caption=chapter.training_time_caption(datasets, variant),
        notes=(COUNTED, *notes_on(study, groups)),
        alt="Training time against dataset ratio, both logarithmic, a panel a dataset. " + " ".join(_words(cells)),
        paint=lambda: _paint(datasets, cells, looks),
    )


def processor(hardware: Hardware) -> str:
    """Name what a run trained on: its GPUs as in table 4.4, or the CPU if it used that."""
    if hardware.device.startswith("cpu"):
        return hardware.cpu
    return gpu_names(hardware.gpus) or hardware.device


def run_seconds(result: Result) -> float:
    """Return the time of the epochs in a run's history, each counted once despite interruptions."""
    return result.timing.train_seconds + result.timing.evaluation_seconds


def unit_for(longest_s: float) -> tuple[str, float]:
    """Choose the unit that suits the longest time; returns its name and its length in seconds."""
    return next((unit for unit in UNITS if longest_s >= 2 * unit[1]), UNITS[-1])


def _words(cells: dict[Group, list[Cell]]) -> list[str]:
    sentences = []
    for group, of_group in cells.items():
        shown = with_results(of_group)
        if not shown:
            sentences.append(f"{group.title}: {NO_RUN}.")
            continue
        means = [spread([run_seconds(result) for result in cell.results]).mean for cell in (shown[0], shown[-1])]
        name, seconds = unit_for(max(means))
        ends = [
            f"{mean / seconds:.2g} {name} at {ratio_text(cell.ratio)}"
            for mean, cell in zip(means, (shown[0], shown[-1]), strict=True)
        ]
        sentences.append(f"{group.title}: mean {' to '.join(dict.fromkeys(ends))}.")
    return sentences


def _paint(datasets: Sequence[str], cells: dict[Group, list[Cell]], looks: dict[str, Look]) -> Figure:
    results = [result for of_group in cells.values() for cell in of_group for result in cell.results]
    processors = sorted({processor(result.hardware) for result in results})
    shapes = {name: SHAPES[place % len(SHAPES)] for place, name in enumerate(processors)}
    architectures = [name for name in looks if any(group.architecture == name for group in cells)]
    lacking = any(not cell.complete for of_group in cells.values() for cell in with_results(of_group))
    columns = _handles(architectures, looks, shapes, lacking=lacking)
    rows = max(map(len, columns))
    figure = new_figure(PANEL_MM * len(datasets) + 8 + LEGEND_ROW_MM * rows)
    panels = figure.subplots(len(datasets), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    ratios = sorted({cell.ratio for of_group in cells.values() for cell in of_group})
    seconds = [max(run_seconds(result), 1e-3) for result in results]
    unit, size = unit_for(max(seconds, default=1.0))
    for axes, dataset in zip(panels, datasets, strict=True):
        axes.set_title(shortened(chapter.dataset_title(dataset), 80))
        axes.set_ylabel(f"Training time ({unit})")
        groups = [group for group in cells if group.dataset == dataset]
        if not any(with_results(cells[group]) for group in groups):
            axes.text(0.5, 0.5, NO_RUN, transform=axes.transAxes, ha="center", va="center")
        for group in groups:
            _paint_group(axes, cells[group], looks[group.architecture], shapes, size)
    if not results:
        for axes in panels:
            say(axes, "")
        return figure
    panels[-1].set_xlabel("Dataset ratio")
    panels[0].set_xscale("log")
    panels[0].set_yscale("log")
    panels[0].set_xlim(*log_limits(ratios, 0.03))
    low, high = log_limits([value / size for value in seconds])
    panels[0].set_ylim(low, high)
    ticks = readable_ticks(low, high)
    for axes in panels:
        log_ticks(axes.yaxis, ticks, [number(tick) for tick in ticks])
    _ratio_ticks(panels[-1], ratios, cells)
    blanks = [Line2D([], [], linestyle="none", label=" ")] * rows  # a legend fills one column after the other
    handles = [handle for column in columns for handle in (*column, *blanks[len(column) :])]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _paint_group(axes: Axes, cells: Sequence[Cell], look: Look, shapes: dict[str, str], size: float) -> None:
    """Draw one architecture on one dataset: the runs, and a line through the means, dashed next to incomplete ones."""
    shown = with_results(cells)
    means = [spread([run_seconds(result) for result in cell.results]).mean / size for cell in shown]
    for start, end in zip(range(len(shown) - 1), range(1, len(shown)), strict=True):
        whole = shown[start].complete and shown[end].complete
        axes.plot(
            [shown[start].ratio, shown[end].ratio],
            [means[start], means[end]],
            color=look.colour,
            linestyle="-" if whole else INCOMPLETE_DASHES,
            linewidth=1.0,
            zorder=2,
        )
    for shape_of, shape in shapes.items():
        points = [
            (cell.ratio, max(run_seconds(result), 1e-3) / size)
            for cell in shown
            for result in cell.results
            if processor(result.hardware) == shape_of
        ]
        if points:
            axes.plot(
                [ratio for ratio, _ in points],
                [time for _, time in points],
                linestyle="none",
                marker=shape,
                color=look.colour,
                fillstyle=look.fill,
                zorder=3,
            )


def _handles(
    architectures: Sequence[str], looks: dict[str, Look], shapes: dict[str, str], *, lacking: bool
) -> tuple[list[Line2D], list[Line2D]]:
    """Return the legend's two columns: lines, markers."""
    lines = [
        Line2D(
            [],
            [],
            color=looks[name].colour,
            marker="o",
            fillstyle=looks[name].fill,
            label=shortened(chapter.architecture_title(name), LONGEST_NAME),
        )
        for name in architectures
    ]
    if lacking:
        label = "dashed: to and from a mean that lacks seeds"
        lines.append(Line2D([], [], color=INK, linestyle=INCOMPLETE_DASHES, label=label))
    markers = [
        Line2D([], [], color=INK, linestyle="none", marker=shape, label=shortened(name, LONGEST_NAME))
        for name, shape in shapes.items()
    ]
    return lines, markers


def _ratio_ticks(axes: Axes, ratios: Sequence[float], cells: dict[Group, list[Cell]]) -> None:
    """Tick the axis at the ratios, which all groups share; only the notes say which group lacks a run."""
    places = [math.log10(ratio) for ratio in ratios]
    reach = max(places[-1] - places[0], 1e-9)
    named = apart(places, [], LABEL_GAP * reach)
    labels = [ratio_text(ratio) if place in named else "" for place, ratio in enumerate(ratios)]
    log_ticks(axes.xaxis, ratios, labels)
