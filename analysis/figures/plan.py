"""A figure before it is drawn: its name, caption, notes and alternative text.

Owns the notes that figures share: which cells are incomplete, why runs are missing, which results are mixed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.missing import missing_note
from analysis.mixed import mixed_note
from analysis.study import Cell, Group, Study
from analysis.tables.metrics import ratio_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_RUN = "no finished run"


@dataclass(frozen=True)
class FigurePlan:
    """One figure of the chapter, drawn on demand.

    number: as in "Figure 4.2". alt: the alternative text, with the key numbers. paint: draws it; called inside style().
    """

    number: str
    variant: str
    caption: str
    notes: tuple[str, ...]
    alt: str
    paint: Callable[[], "Figure"]

    @property
    def name(self) -> str:
        """The name of its files, without extension."""
        return f"figure-{self.number}" + (f"-{self.variant}" if self.variant else "")

    def draw(self) -> "Figure":
        """Draw the figure in the common style."""
        from analysis.figures.style import settle, style

        with style():
            return settle(self.paint())


def notes_on(study: Study, groups: Iterable[Group]) -> tuple[str, ...]:
    """Collect the notes on a figure of these groups: incomplete cells, missing runs and why, mixed results."""
    groups = list(groups)
    incomplete = []
    for group in groups:
        lacking = [f"{ratio_text(cell.ratio)} ({cell.seeds})" for cell in study.cells(group) if not cell.complete]
        if lacking:
            incomplete.append(f"{f'{group.title} at ' if len(groups) > 1 else ''}ratio {', '.join(lacking)}")
    runs = [run for group in groups for run in study.groups[group]]
    notes = [f"Incomplete: {'; '.join(incomplete)}."] if incomplete else []
    notes += missing_note(runs, study.missing)
    for dataset in dict.fromkeys(group.dataset for group in groups):
        of_dataset = [group for group in groups if group.dataset == dataset]
        notes += mixed_note(result for group in of_dataset for cell in study.cells(group) for result in cell.results)
    return tuple(dict.fromkeys(notes))


def ratio_label(cell: Cell) -> str:
    """Format a cell's ratio for an axis, with the number of seeds if some are missing: "0.4 (2 of 3)"."""
    short = ratio_text(cell.ratio)
    return short if cell.complete else f"{short} ({len(cell.results)} of {len(cell.planned)})"


def with_results(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.results]


def drops(cells: Sequence[Cell]) -> list[int]:
    """List the epochs at which the learning rate drops in these cells' recipes."""
    recipes = [run.training for cell in cells for run in cell.planned]
    return sorted({epoch for recipe in recipes for epoch in recipe.lr_milestones if epoch < recipe.epochs})


def shortened(name: str, most: int) -> str:
    """Cut a name to at most so many characters to fit the figure; the caption has it whole."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
