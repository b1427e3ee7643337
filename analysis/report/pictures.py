"""The figures on the page, each an SVG embedded as an <img>.

Owns the embedding; `analysis.figures` and `analysis.comparison.figure` draw.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from analysis.report.shrink import shrink
from analysis.study import Study

if TYPE_CHECKING:
    from analysis.comparison.compare import Comparison

VIEW_BOX = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
SAFE_IN_ADDRESS = " !$()*+,-./:;=?@[]^_`{|}~"


class Picture(NamedTuple):
    """A figure ready for the page. address: the whole picture, as a data: URL.

    width, height: reserve its space before it is drawn, so that the page does not jump.
    """

    name: str
    number: str
    caption: str
    notes: tuple[str, ...]
    alt: str
    address: str
    width: int
    height: int


def chapter_pictures(study: Study, tell: Callable[[int, int], None]) -> list[Picture]:
    """Draw every figure of a study; tell: called with the number drawn and the total."""
    from analysis.figures import build_figures
    from analysis.figures.style import render  # here: loads matplotlib, which is slow

    plans = build_figures(study)
    pictures = []
    for plan in plans:
        drawn = embedded(render(plan.draw(), "svg").decode())
        pictures.append(Picture(plan.name, plan.number, plan.caption, plan.notes, plan.alt, *drawn))
        tell(len(pictures), len(plans))
    return pictures


def comparison_pictures(comparison: "Comparison", tell: Callable[[int, int], None]) -> list[Picture]:
    """Draw the figure of each table with matched cells; tell: as for chapter_pictures."""
    from analysis.comparison.figure import alternative_text, draw
    from analysis.figures.style import render

    tables = [table for table in comparison.tables if table.matched]
    pictures = []
    for table in tables:
        drawn = embedded(render(draw(table), "svg").decode())
        variant = f"-{table.group.variant}" if table.group.variant else ""
        pictures.append(
            Picture(
                f"figure-comparison-{table.number}{variant}",
                f"{table.number} (comparison)",
                f"{table.group.title} beside the published values of {comparison.reference}: the best of each metric "
                "over training images, ours minus published under it.",
                (),
                alternative_text(table),
                *drawn,
            )
        )
        tell(len(pictures), len(tables))
    return pictures


def embedded(svg: str) -> tuple[str, int, int]:
    """Convert an SVG to the address of an <img>; returns (address, width, height).

    In an <img> its scripts do not run, its ids and styles do not affect the page, and the page's policy, which forbids
    the style attributes that Matplotlib writes, does not apply. It stays as sharp as inline SVG.
    """
    box = VIEW_BOX.search(svg)
    if box is None:
        raise ValueError("an SVG without a viewBox has no proportions")
    address = f"data:image/svg+xml,{quote(shrink(svg), safe=SAFE_IN_ADDRESS)}"
    return address, round(float(box[1])), round(float(box[2]))
