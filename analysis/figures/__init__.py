"""The chapter's figures: 4.1-4.13 as in the thesis, then architectures side by side and data scaling.

Owns which figures there are and the files in <output>/<sweep>/figures/. A module per kind draws them, in the style of
`analysis.figures.style`. Importing this loads matplotlib.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis import chapter
from analysis.figures.curves import curves_plan
from analysis.figures.data_scaling import scaling_plan
from analysis.figures.plan import FigurePlan
from analysis.figures.side_by_side import side_by_side_plan
from analysis.figures.style import Format, architecture_looks, render
from analysis.figures.surfaces import surface_plan
from analysis.figures.training_time import training_time_plan
from analysis.folder import write_folder
from analysis.formats import escape_markdown
from analysis.study import Study

FORMATS: tuple[Format, ...] = ("pdf", "png")
# A variant is key=value; a name without "=" may be the user's own file.
OUR_FILE = re.compile(r"figure-4\.\d+(-[^=]+=.*)?\.(pdf|png)|captions\.md")

Progress = Callable[[str, int, int], None]


def build_figures(study: Study) -> list[FigurePlan]:
    """Plan every figure of a study, sorted by number. Raises AnalysisError for two runs in one cell."""
    architectures = chapter.in_order((group.architecture for group in study.groups), chapter.ARCHITECTURE_ORDER)
    looks = architecture_looks(architectures)
    numbers = chapter.number_figures((run.run.architecture, run.run.dataset) for run in study.planned)
    plans: list[tuple[int, FigurePlan]] = []
    for variant in dict.fromkeys(run.variant for run in study.planned):
        plans.append((1, training_time_plan(study, variant, looks)))
    for group in study.groups:
        first = numbers.pairs[group.architecture, group.dataset]
        plans.append((first, surface_plan(study, group, first)))
        plans.append((first + 1, curves_plan(study, group, first + 1, "validation")))
        plans.append((first + 2, curves_plan(study, group, first + 2, "training")))
    for dataset, variant in dict.fromkeys((group.dataset, group.variant) for group in study.groups):
        if dataset in numbers.side_by_side:
            number = numbers.side_by_side[dataset]
            plans.append((number, side_by_side_plan(study, dataset, variant, number, looks)))
        number = numbers.scaling[dataset]
        plans.append((number, scaling_plan(study, dataset, variant, number, looks)))
    return [plan for _, plan in sorted(plans, key=lambda numbered: numbered[0])]


def write_figures(folder: Path, study: Study, progress: Progress | None = None) -> list[Path]:
    """Write every figure as PDF and PNG, then captions.md; return the paths in this order.

    folder: <output>/<sweep>. progress: called with "figures", the number drawn and the total. Removes figures of an
    earlier call that no longer belong. Equal input gives equal bytes. Raises AnalysisError, OSError.
    """
    plans = build_figures(study)
    files: dict[str, bytes] = {}
    for done, plan in enumerate(plans, start=1):
        figure = plan.draw()
        files |= {f"{plan.name}.{ending}": render(figure, ending) for ending in FORMATS}
        if progress is not None:
            progress("figures", done, len(plans))
    files["captions.md"] = captions(plans).encode()
    return write_folder(folder / "figures", files, OUR_FILE)


def captions(plans: Sequence[FigurePlan]) -> str:
    """Format captions, alternative texts and notes of the figures as Markdown."""
    parts = ["# Figures\n"]
    for plan in plans:
        parts.append(f"## Figure {plan.number}{f' ({escape_markdown(plan.variant)})' if plan.variant else ''}\n")
        parts.append(f"![{escape_markdown(plan.alt)}](<{plan.name}.png>)\n")
        parts.append(f"Figure {plan.number}. {escape_markdown(plan.caption)}\n")
        parts.extend(f"- {escape_markdown(note)}" for note in plan.notes)
        parts.append("")
    return "\n".join(parts)
