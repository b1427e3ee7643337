"""The small charts on a run's page: a metric over the epochs, as SVG coloured by the page's style.

Owns scales, ticks and labels. Markup escapes every text.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 34, 40
MOST_POINTS = 400  # more epochs are thinned out; the plot is about as many pixels wide
TICKS = 5
FINE = 4  # points lie on a grid of this many steps per unit; a unit is about a pixel


class Line(NamedTuple):
    """One curve. name: in the legend. look: its CSS class. values: one per epoch, from epoch 0."""

    name: str
    look: str
    values: Sequence[float]


def epochs_chart(
    title: str, lines: Sequence[Line], epochs: int, milestones: Sequence[int], best: tuple[int, float] | None
) -> Markup:
    """Draw curves over the epochs 0 to epochs - 1; the vertical axis includes 0.

    milestones: the epochs at which the learning rate drops, marked. best: (epoch, value) of the point to ring.
    """
    values = [value for line in lines for value in line.values]
    last = max(epochs, *(len(line.values) for line in lines), 2) - 1
    y_ticks = ticks(min(0.0, *values), max(values))
    x_ticks = [tick for tick in ticks(0, last) if tick <= last]
    low, high = y_ticks[0], y_ticks[-1]

    def x(epoch: float) -> str:
        return _short(LEFT + (WIDTH - LEFT - RIGHT) * epoch / last)

    def y(value: float) -> str:
        return _short(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low))

    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            WIDTH, HEIGHT, describe(title, lines, best)
        ),
        Markup('<text class="chart-title" x="0" y="14">{}</text>').format(title),
    ]
    for tick in y_ticks:
        parts.append(
            Markup(
                '<path class="grid" d="M{} {}H{}"/><text class="tick" text-anchor="end" x="{}" y="{}">{}</text>'
            ).format(LEFT, y(tick), WIDTH - RIGHT, LEFT - 7, _short(float(y(tick)) + 4), f"{tick:g}")
        )
    for tick in x_ticks:
        parts.append(
            Markup('<text class="tick" text-anchor="middle" x="{}" y="{}">{}</text>').format(
                x(tick), HEIGHT - BOTTOM + 17, f"{tick:g}"
            )
        )
    parts.append(
        Markup('<text class="tick" text-anchor="middle" x="{}" y="{}">epoch</text>').format(
            _short((LEFT + WIDTH - RIGHT) / 2), HEIGHT - 5
        )
    )
    for milestone in milestones:
        if milestone <= last:
            parts.append(Markup('<path class="milestone" d="M{} {}V{}"/>').format(x(milestone), TOP, HEIGHT - BOTTOM))
    parts.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT))
    parts += [_curve(line, last, low, high) for line in lines]
    if best is not None:
        parts.append(Markup('<circle class="best" cx="{}" cy="{}" r="4.5"/>').format(x(best[0]), y(best[1])))
    parts += _legend(lines)
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def describe(title: str, lines: Sequence[Line], best: tuple[int, float] | None) -> str:
    """Describe a chart in a sentence: its alternative text."""
    ends = ", ".join(f"{line.name} from {line.values[0]:.3g} to {line.values[-1]:.3g}" for line in lines)
    ringed = f"; best {lines[0].name} {best[1]:.3g} at epoch {best[0]}" if best else ""
    return f"{title} over {len(lines[0].values)} epochs: {ends}{ringed}."


def ticks(low: float, high: float) -> list[float]:
    """Choose about five round, evenly spaced numbers that enclose low and high."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10, 20) if span / (factor * power) <= TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def _curve(line: Line, last: int, low: float, high: float) -> Markup:
    """Draw one curve on a grid of 1/FINE units: integers take half the bytes of coordinates with a decimal."""
    step = -(-len(line.values) // MOST_POINTS)
    kept = [*range(0, len(line.values), step)]
    if kept[-1] != len(line.values) - 1:
        kept.append(len(line.values) - 1)
    points = [
        (
            round(FINE * (LEFT + (WIDTH - LEFT - RIGHT) * epoch / last)),
            round(FINE * (HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (line.values[epoch] - low) / (high - low))),
        )
        for epoch in kept
    ]
    # A single epoch is a step of length 0, which the line's round caps show as a point.
    steps = [f"{x1 - x0} {y1 - y0}" for (x0, y0), (x1, y1) in pairwise([points[0], *points])]
    path = f"M{points[0][0]} {points[0][1]}l{' '.join(steps).replace(' -', '-')}"
    return Markup('<path class="curve {}" transform="scale({})" d="{}"/>').format(line.look, 1 / FINE, path)


def _legend(lines: Sequence[Line]) -> list[Markup]:
    parts = []
    right = WIDTH - RIGHT
    for line in reversed(lines):
        width = 7 * len(line.name)
        parts.append(
            Markup(
                '<text class="key" text-anchor="end" x="{}" y="14">{}</text><path class="curve {}" d="M{} 10h24"/>'
            ).format(right, line.name, line.look, right - width - 30)
        )
        right -= width + 44
    return parts


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
