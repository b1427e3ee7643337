"""Figures 4.16 and 4.17: best accuracy and loss against training images, and the architectures' data ratio.

Owns which numbers are fitted and the sentences about the fit; `analysis.scaling` fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import chapter
from analysis.figures.curves import trend
from analysis.figures.plan import NO_RUN, FigurePlan, notes_on, shortened
from analysis.figures.style import (
    BAND_ALPHA,
    FAINT,
    METRIC_LABELS,
    Look,
    log_limits,
    log_ticks,
    new_figure,
    number,
    readable_ticks,
    say,
)
from analysis.scaling import Crossing, FitError, ScalingFit, common_errors, crossings, data_ratio, fit_scaling
from analysis.study import Group, Study
from analysis.tables.metrics import ratio_text
from trainer.records.result import Metric

METRICS: tuple[Metric, Metric] = ("val_accuracy", "val_loss")
SHORT = {"val_accuracy": "accuracy", "val_loss": "loss"}
PANEL_MM = 62.0
STEPS = 120
WIDEST_RATIO = 10.0  # limit to which an interval may widen the axis of data ratios


@dataclass(frozen=True)
class Points:
    """A group's runs for one metric: images and best value of each; the curve, or why there is none."""

    group: Group
    images: tuple[int, ...]
    values: tuple[float, ...]
    fit: ScalingFit | None
    problem: str | None

    @property
    def title(self) -> str:
        """The architecture's title."""
        return chapter.architecture_title(self.group.architecture)


def scaling_plan(study: Study, dataset: str, variant: str, number: int, looks: dict[str, Look]) -> FigurePlan:
    """Plan figure 4.N: the architectures of one dataset and variant."""
    groups = [group for group in study.groups if (group.dataset, group.variant) == (dataset, variant)]
    groups.sort(key=lambda group: list(looks).index(group.architecture))
    points = {metric: [_points(study, group, metric) for group in groups] for metric in METRICS}
    full = max(cell.train_samples / cell.ratio for group in groups for cell in study.cells(group))
    findings = [sentence for metric in METRICS for sentence in _findings(points[metric], metric, full)]
    trends = [trend(group.title, study.cells(group), METRICS) for group in groups]
    return FigurePlan(
        number=f"4.{number}",
        variant=variant,
        caption=chapter.scaling_caption([group.architecture for group in groups], dataset, variant),
        notes=(*findings, *notes_on(study, groups)),
        alt=" ".join(["Best validation accuracy and loss against training images.", *trends, *findings]),
        paint=lambda: _paint(points, looks),
    )


def _points(study: Study, group: Group, metric: Metric) -> Points:
    results = [result for cell in study.cells(group) for result in cell.results]
    images = tuple(result.data.train_samples for result in results)
    values = tuple(getattr(result.best, metric).value for result in results)
    fit, problem = None, None
    try:
        fit = fit_scaling(images, [_error(value, metric) for value in values])
    except FitError as error:
        problem = str(error)
    return Points(group, images, values, fit, problem)


def _error(value: float, metric: Metric) -> float:
    """Convert a metric to an error, or an error back to the metric."""
    return 1 - value if metric.endswith("accuracy") else value


def _findings(points: Sequence[Points], metric: Metric, full: float) -> list[str]:
    """Describe the curves and how the architectures compare, with 95 % intervals."""
    sentences = [f"{one.title}, {SHORT[metric]}: {_curve_words(one, metric)}." for one in points if one.images]
    first = points[0]
    for second in points[1:]:
        if first.fit is None or second.fit is None:
            continue
        common = common_errors(first.fit, second.fit)
        if common is None:
            sentences.append(f"{first.title} and {second.title} have no {SHORT[metric]} in common.")
            continue
        values = _round_values(*sorted(_error(error, metric) for error in common))
        compared = data_ratio(first.fit, second.fit, [_error(value, metric) for value in values])
        needs = [
            f"{ratio:.2f} [{low:.2f}, {high:.2f}] at {value:g}"
            for value, ratio, low, high in zip(values, compared.ratio, compared.low, compared.high, strict=True)
        ]
        sentences.append(
            f"Images that {second.title} needs for the same {SHORT[metric]}, as a multiple of {first.title}'s: "
            f"{', '.join(needs)}."
        )
        crossed = crossings(first.fit, second.fit)
        equal = [_crossing_words(crossing, full) for crossing in crossed]
        sentences.append(
            f"Equal {SHORT[metric]} of {first.title} and {second.title} at {' and at '.join(equal)}."
            if equal
            else f"The curves of {SHORT[metric]} of {first.title} and {second.title} do not cross within the data."
        )
    return sentences


def _curve_words(points: Points, metric: Metric) -> str:
    fit = points.fit
    if fit is None:
        return points.problem or ""
    error = "1 - accuracy" if metric.endswith("accuracy") else "loss"
    if fit.has_floor:
        words = f"{error} = {fit.floor:.3g} + {fit.scale:.3g} n^-{fit.exponent:.2g}"
    else:
        words = "no floor in sight, the curve describes the range of the data only"
    return words + (", and the means lie off it by more than their seeds explain" if fit.lacks_fit else "")


def _crossing_words(crossing: Crossing, full: float) -> str:
    if crossing.low is None and crossing.high is None:
        return f"{_rounded(crossing.images):,} images, though nowhere in the data can the two be told apart"
    low = "below the data" if crossing.low is None else f"{_rounded(crossing.low):,}"
    high = "beyond the data" if crossing.high is None else f"{_rounded(crossing.high):,}"
    ratio = ratio_text(float(f"{crossing.images / full:.2g}"))
    return f"{_rounded(crossing.images):,} images [{low}, {high}], ratio {ratio}"


def _rounded(images: float) -> int:
    """Round an estimate to three significant digits."""
    return int(float(f"{images:.3g}"))


def _round_values(low: float, high: float) -> list[float]:
    """Choose up to three values with few digits, spread between low and high."""
    for digits in (1, 2, 3, 4):
        step = 10.0**-digits
        inside = [
            round(place * step, digits) for place in range(max(int(np.ceil(low / step)), 1), int(high / step) + 1)
        ]
        if len(inside) >= 3:
            return list(dict.fromkeys((inside[0], inside[len(inside) // 2], inside[-1])))
    return [(low + high) / 2]


def _paint(points: dict[Metric, list[Points]], looks: dict[str, Look]) -> Figure:
    several = len(points[METRICS[0]]) > 1
    figure = new_figure(PANEL_MM * (2 if several else 1) + 10)
    panels = figure.subplots(2 if several else 1, len(METRICS), squeeze=False)
    for column, metric in enumerate(METRICS):
        _paint_points(panels[0, column], points[metric], metric, looks)
        if several:
            _paint_ratio(panels[1, column], points[metric], metric, looks)
    handles = [
        Line2D(
            [],
            [],
            color=looks[one.group.architecture].colour,
            linestyle=looks[one.group.architecture].dashes,
            marker="o",
            fillstyle=looks[one.group.architecture].fill,
            label=shortened(one.title, 40),
        )
        for one in points[METRICS[0]]
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))
    return figure


def _paint_points(axes: Axes, points: Sequence[Points], metric: Metric, looks: dict[str, Look]) -> None:
    axes.set_ylabel(METRIC_LABELS[metric])
    images = [count for one in points for count in one.images]
    if not images:
        say(axes, NO_RUN)
        return
    axes.set_xlabel("Training images")
    axes.set_xscale("log")
    low, high = log_limits(images)
    axes.set_xlim(low, high)
    ticks = readable_ticks(low, high, 6)
    log_ticks(axes.xaxis, ticks, [number(tick) for tick in ticks])
    for one in points:
        look = looks[one.group.architecture]
        axes.plot(
            one.images,
            one.values,
            linestyle="none",
            marker="o",
            markersize=3,
            color=look.colour,
            fillstyle=look.fill,
            zorder=3,
        )
        if one.fit is not None:
            grid = np.geomspace(one.fit.fewest, one.fit.most, STEPS)
            lower, upper = one.fit.interval(grid)
            sign, offset = (-1, 1) if metric.endswith("accuracy") else (1, 0)
            axes.fill_between(
                grid, offset + sign * lower, offset + sign * upper, color=look.colour, alpha=BAND_ALPHA, linewidth=0
            )
            axes.plot(grid, offset + sign * one.fit.error(grid), color=look.colour, linestyle=look.dashes)
    _mark_crossings(axes, points)


def _mark_crossings(axes: Axes, points: Sequence[Points]) -> None:
    """Mark the images at which another architecture equals the first, with the interval as a bar."""
    first, last = points[0].fit, np.inf
    for second in points[1:]:
        if first is None or second.fit is None:
            continue
        for crossing in crossings(first, second.fit):
            if crossing.low is None and crossing.high is None:
                continue  # the curves cannot be told apart anywhere, so the crossing means nothing
            low, high = axes.get_xlim()
            axes.axvspan(crossing.low or low, crossing.high or high, color=FAINT, alpha=0.12, linewidth=0, zorder=0.5)
            axes.axvline(crossing.images, color=FAINT, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1.5)
            if not 1 / 1.8 < crossing.images / last < 1.8:
                axes.annotate(
                    f"equal at {_rounded(crossing.images):,}",
                    (crossing.images, 1.01),
                    xycoords=axes.get_xaxis_transform(),
                    ha="center",
                    va="bottom",
                    fontsize=6.5,
                )
                last = crossing.images


def _paint_ratio(axes: Axes, points: Sequence[Points], metric: Metric, looks: dict[str, Look]) -> None:
    """Draw the images the others need as a multiple of the first architecture's, over the metric's values."""
    first = points[0]
    axes.set_ylabel(f"Images needed, as a multiple\nof {shortened(first.title, 24)}'s")
    axes.set_xlabel(METRIC_LABELS[metric])
    reach: list[float] = [1.0]
    drawn = False
    for second in points[1:]:
        if first.fit is None or second.fit is None or (common := common_errors(first.fit, second.fit)) is None:
            continue
        drawn = True
        look = looks[second.group.architecture]
        errors = np.linspace(*common, STEPS)
        compared = data_ratio(first.fit, second.fit, errors)
        values = [_error(float(error), metric) for error in errors]
        axes.fill_between(
            values,
            np.clip(compared.low, 1 / WIDEST_RATIO**2, WIDEST_RATIO**2),
            np.clip(compared.high, 1 / WIDEST_RATIO**2, WIDEST_RATIO**2),
            color=look.colour,
            alpha=BAND_ALPHA,
            linewidth=0,
        )
        axes.plot(values, compared.ratio, color=look.colour, linestyle=look.dashes)
        reach += [
            *compared.ratio,
            *np.clip(np.concatenate([compared.low, compared.high]), 1 / WIDEST_RATIO, WIDEST_RATIO),
        ]
    if not drawn:
        say(axes, "no two curves to compare")
        return
    axes.set_yscale("log")
    low, high = log_limits([*reach, 1 / 1.25, 1.25])
    axes.set_ylim(low, high)
    ticks = readable_ticks(low, high)
    log_ticks(axes.yaxis, ticks, [f"{number(tick)} ×" for tick in ticks])
    axes.axhline(1.0, color=FAINT, linewidth=0.8, zorder=1.5)
