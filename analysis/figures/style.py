"""The figures' style and rendering: print sizes, fonts, colours that also work in grey, reproducible bytes.

Architectures differ in colour (Okabe and Ito's, safe for the colour-blind), line and marker fill; hardware in marker
shape; ratios in their place on one colour map, whose lightness rises in grey too. Knows nothing of results.
"""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

Format = Literal["pdf", "png", "svg"]

MM = 1 / 25.4
TEXT_WIDTH_MM = 160.0
PNG_DPI = 200
PIXELS_IN_VECTORS_DPI = 300  # of rasterized parts of a PDF or SVG: the surfaces

INK = "#222222"
FAINT = "#767676"
COLOUR_MAP = "viridis"
DARKEST, LIGHTEST = 0.0, 0.88  # on the colour map; its light end would vanish on paper
DROP_COLOUR = "#8a8a8a"
BAND_ALPHA = 0.2

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.titlepad": 4,
    "axes.labelsize": 7.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a name is a dollar
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.labelspacing": 0.35,
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "lines.markeredgewidth": 0.9,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.constrained_layout.hspace": 0.03,
    "figure.constrained_layout.wspace": 0.05,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "sweep",
}

METRIC_LABELS: dict[str, str] = {
    "val_accuracy": "Validation accuracy",
    "val_loss": "Validation loss (cross entropy, nats)",
    "train_accuracy": "Training accuracy",
    "train_loss": "Training loss (cross entropy, nats)",
}
METRIC_TITLES: dict[str, str] = {metric: label.partition(" (")[0] for metric, label in METRIC_LABELS.items()}

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#F0E442")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (1, 1)), (0, (6, 1.2, 1, 1.2)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
Fill = Literal["full", "none", "left", "top", "right", "bottom"]
FILLS: tuple[Fill, ...] = ("full", "none", "left", "top", "right", "bottom")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
INCOMPLETE_DASHES: Any = (0, (2.5, 1.3))

# A hundredth of a point is far below what can be seen; matplotlib writes millionths, which takes twice the bytes.
PATH = re.compile(rb' d="[^"]*"')
LONG_NUMBER = re.compile(rb"(\d\.\d\d)\d+")


class Look(NamedTuple):
    """How one architecture is drawn."""

    colour: str
    dashes: Any
    fill: Fill


def architecture_looks(architectures: Sequence[str]) -> dict[str, Look]:
    """Assign each architecture of a study its look."""
    return {
        name: Look(COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)], FILLS[place % len(FILLS)])
        for place, name in enumerate(architectures)
    }


def ratio_colours(count: int) -> list[str]:
    """Return the colours of ascending ratios."""
    colour_map = matplotlib.colormaps[COLOUR_MAP]
    return [
        to_hex(colour_map(DARKEST + (LIGHTEST - DARKEST) * place / max(count - 1, 1)))
        for place in reversed(range(count))
    ]


@contextmanager
def style() -> Iterator[None]:
    """Draw in this style, whatever the user's own matplotlib settings are, and restore them afterwards."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def new_figure(height_mm: float, *, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Create an empty figure as wide as the text."""
    figure = Figure(figsize=(TEXT_WIDTH_MM * MM, height_mm * MM), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def settle(figure: Figure) -> Figure:
    """Lay the figure out once for all formats."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def render(figure: Figure, ending: Format) -> bytes:
    """Render a figure as a file without date or version: equal figures give equal bytes."""
    metadata: dict[str, dict[str, Any]] = {
        "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
        "png": {"Software": None},
        "svg": {"Creator": None, "Date": None, "Format": None, "Type": None},
    }
    buffer = io.BytesIO()
    with style():
        dpi = PNG_DPI if ending == "png" else PIXELS_IN_VECTORS_DPI
        figure.savefig(buffer, format=ending, dpi=dpi, metadata=metadata[ending])
    content = buffer.getvalue()
    return PATH.sub(lambda path: LONG_NUMBER.sub(rb"\1", path[0]), content) if ending == "svg" else content


def say(axes: Axes, words: str) -> None:
    """Write words in the middle of axes that have nothing to draw."""
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def mark_drops(axes: Axes, milestones: Sequence[int]) -> None:
    """Mark the epochs at which the learning rate drops."""
    for epoch in milestones:
        axes.axvline(epoch, color=DROP_COLOUR, linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=1.5)


def log_ticks(axis: Axis, values: Sequence[float], labels: Sequence[str]) -> None:
    """Tick a logarithmic axis at these values and nowhere else."""
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_ticklabels(list(labels))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def log_limits(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """Return limits for a logarithmic axis around these values, with a margin even around a single one."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max((high - low) * margin, 0.02)
    return 10 ** (low - room), 10 ** (high + room)


def readable_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Choose round ticks between two positive values for a logarithmic axis, about `most` at most."""
    if high < 4 * low:
        linear = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        return [round(float(tick), 6) for tick in linear if low <= tick <= high]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        # Parsed, not multiplied: a product would have more decimals.
        ticks = [tick for decade in decades for step in steps if low <= (tick := float(f"{step}e{decade}")) <= high]
        if len(ticks) <= most:
            break
    return ticks


def apart(places: Sequence[float], first: Sequence[int], gap: float) -> list[int]:
    """Choose places, by index, that are at least a gap apart; the indexes in `first`, then the ends, have priority."""
    ends = [0, len(places) - 1] if places else []
    chosen: list[int] = []
    for index in [*(end for end in ends if end in first), *first, *ends, *range(len(places))]:
        if all(abs(places[index] - places[other]) >= gap for other in chosen):
            chosen.append(index)
    return sorted(chosen)


def number(value: float) -> str:
    """Format a tick: 0.05, 2, 1,000."""
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"
