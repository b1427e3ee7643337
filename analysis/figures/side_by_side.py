"""Figures 4.14 and 4.15: architectures on identical data, ratio by ratio, on the same axes."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import chapter
from analysis.figures.curves import Curve, cut_note, epoch_axis, mean_curve, metric_axis, plot_curve, trend
from analysis.figures.plan import NO_RUN, FigurePlan, drops, notes_on, shortened
from analysis.figures.style import DROP_COLOUR, METRIC_LABELS, Look, mark_drops, new_figure, say
from analysis.study import Cell, Group, Study
from analysis.tables.metrics import ratio_text
from trainer.records.result import Metric

METRICS: tuple[Metric, Metric] = ("val_accuracy", "val_loss")
COLUMNS = 5
HEIGHT_MM = 100.0


def side_by_side_plan(study: Study, dataset: str, variant: str, number: int, looks: dict[str, Look]) -> FigurePlan:
    """Plan figure 4.N: the architectures of one dataset and variant."""
    groups = [group for group in study.groups if (group.dataset, group.variant) == (dataset, variant)]
    groups.sort(key=lambda group: list(looks).index(group.architecture))
    cells = {group: {cell.ratio: cell for cell in study.cells(group)} for group in groups}
    ratios = chosen_ratios([list(of_group.values()) for of_group in cells.values()])
    of_ratios = [cells[group][ratio] for group in groups for ratio in ratios if ratio in cells[group]]
    shown = f"Shown are the ratios {', '.join(map(ratio_text, ratios))}." if ratios else "No ratio has a finished run."
    trends = [trend(group.title, list(cells[group].values()), METRICS) for group in groups]
    return FigurePlan(
        number=f"4.{number}",
        variant=variant,
        caption=chapter.side_by_side_caption([group.architecture for group in groups], dataset, variant),
        notes=(shown, *notes_on(study, groups), *cut_note(of_ratios, METRICS)),
        alt=f"Validation accuracy above, validation loss below, over the epochs, a column a dataset ratio. "
        f"{' '.join(trends)}",
        paint=lambda: _paint(cells, ratios, looks),
    )


def chosen_ratios(groups: Sequence[Sequence[Cell]], most: int = COLUMNS) -> list[float]:
    """Choose evenly log-spaced ratios from those with a result in the most groups, preferring complete ones."""
    results: dict[float, int] = {}
    lacking: dict[float, int] = {}
    for cell in (cell for cells in groups for cell in cells):
        results[cell.ratio] = results.get(cell.ratio, 0) + bool(cell.results)
        lacking[cell.ratio] = lacking.get(cell.ratio, 0) + (not cell.complete)
    best = max(results.values(), default=0)
    ratios = sorted(ratio for ratio, count in results.items() if count == best > 0)
    if len(ratios) <= most:
        return ratios
    low, high = math.log(ratios[0]), math.log(ratios[-1])
    chosen: list[float] = []
    for step in range(most):
        wanted = low + (high - low) * step / (most - 1)
        left = [ratio for ratio in ratios if ratio not in chosen]
        near = 0.5 * (high - low) / most
        # Count an incomplete ratio as somewhat further away, so that a complete neighbour is chosen instead.
        distance = {ratio: abs(math.log(ratio) - wanted) + (near if lacking[ratio] else 0.0) for ratio in left}
        chosen.append(min(left, key=distance.__getitem__))
    return sorted(chosen)


def _paint(cells: dict[Group, dict[float, Cell]], ratios: Sequence[float], looks: dict[str, Look]) -> Figure:
    figure = new_figure(HEIGHT_MM)
    panels = figure.subplots(len(METRICS), max(len(ratios), 1), sharex=True, sharey="row", squeeze=False)
    milestones = drops([cell for of_group in cells.values() for cell in of_group.values()])
    for row, metric in zip(panels, METRICS, strict=True):
        row[0].set_ylabel(METRIC_LABELS[metric].replace(" (", "\n("))
        if not ratios:
            say(row[0], NO_RUN)
            continue
        everything: list[Curve] = []
        for axes, ratio in zip(row, ratios, strict=True):
            absent = []
            for group, of_group in cells.items():
                cell = of_group.get(ratio)
                look, title = looks[group.architecture], chapter.architecture_title(group.architecture)
                if cell is not None and not cell.complete:
                    absent.append(f"\n{shortened(title, 12)}: {cell.seeds.removesuffix(' seeds')}")
                if cell is not None and cell.results:
                    everything.append(mean_curve(cell, metric))
                    plot_curve(axes, everything[-1], look.colour, look.dashes, group.title)
            mark_drops(axes, milestones)
            if metric == METRICS[0]:
                images = next(of_group[ratio].train_samples for of_group in cells.values() if ratio in of_group)
                axes.set_title(f"Ratio {ratio_text(ratio)}\n{images:,} images{''.join(absent)}", fontsize=7)
            else:
                axes.set_xlabel("Epoch")
        metric_axis(row[0], metric, everything)
        epoch_axis(row[0], max(len(curve.mean) for curve in everything))
        row[0].xaxis.get_major_locator().set_params(nbins=4)
    handles = [
        Line2D(
            [],
            [],
            color=looks[group.architecture].colour,
            linestyle=looks[group.architecture].dashes,
            label=shortened(chapter.architecture_title(group.architecture), 40),
        )
        for group in cells
    ]
    if milestones and ratios:
        drop = Line2D([], [], color=DROP_COLOUR, linewidth=0.9, linestyle=(0, (1, 1.5)), label="learning rate drops")
        handles.append(drop)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))
    return figure
