"""A comparison in sentences: a verdict per table, remarks on how alike the two sides are, and the gaps.

Owns the words; `compare` computes the numbers. Pure.
"""

import math
from collections.abc import Iterable, Sequence

from analysis.chapter import architecture_title, dataset_title
from analysis.comparison.compare import ComparedCell, ComparedTable, Comparison, Gap
from analysis.comparison.difference import LEVEL, SURPRISE, chance_of_so_many
from analysis.missing import missing_note
from analysis.tables.metrics import ratio_text
from trainer.records.result import METRICS, Metric

METRIC_WORDS: dict[Metric, str] = {metric: metric.replace("_", " ") for metric in METRICS}
MARK_DIFFERS = "*"
NAMED_CELLS = 4  # differing cells named in the verdict; the table marks all


def verdict(table: ComparedTable) -> str:
    """State the verdict on a table in one sentence."""
    return f"{heading(table)}: {_judgement(table)}."


def heading(table: ComparedTable) -> str:
    """Name a table: "ResNet-18 / CIFAR-10 (table 4.5)", with the reference's number if it is another."""
    others = [name for name in table.published_tables if name != table.number]
    published = f", published as {', '.join(others)}" if others else ""
    return f"{table.group.title} (table {table.number}{published})"


def remarks(table: ComparedTable) -> list[str]:
    """List what makes the two sides of a table less comparable than their numbers suggest."""
    if not table.matched:
        return []
    found: list[str] = []
    moved = {cell.ratio: cell.reference_ratio for cell in table.matched if cell.ratio != cell.reference_ratio}
    if moved:
        ours = ", ".join(map(ratio_text, moved))
        theirs = ", ".join(ratio_text(ratio) for ratio in moved.values() if ratio is not None)
        found.append(
            f"Matched by training images: our {_ratios(len(moved))} {ours} {'are' if len(moved) > 1 else 'is'} the "
            f"published {theirs}; subsets of a smaller set share more images, so our seeds may spread less."
        )
    official = table.official_val_samples
    if official and table.val_samples and table.val_samples != (official,):
        ours = " or ".join(f"{size:,}" for size in table.val_samples)
        moves = ""
        accuracies = [
            cell.published.mean for cell in table.comparable if cell.metric == "val_accuracy" and cell.published
        ]
        if accuracies:
            typical = max(math.sqrt(mean * (1 - mean) / table.val_samples[0]) for mean in accuracies)
            moves = (
                f": which images they are moves val accuracy by up to ±{typical:.3f}, which its z takes into account, "
                "and val loss by an unrecorded amount, so its z is not judged"
            )
        found.append(f"Validated on {ours} images, the official set has {official:,}{moves}.")
    if table.recipe_differences:
        found.append(f"Our recipe is not the thesis's: {', '.join(table.recipe_differences)}.")
    return found


def coverage(table: ComparedTable) -> list[str]:
    """List what could not be compared: published gaps, our missing runs, cells that one side lacks."""
    found = [_gap(gap) for gap in table.gaps]
    found += missing_note(table.matched_runs, table.missing)
    alone = sorted({cell.ratio for cell in table.cells if cell.reference_ratio is None})
    if alone and table.published_tables:
        listed = ", ".join(map(ratio_text, alone))
        found.append(f"Not in the reference: our {_ratios(len(alone))} {listed}.")
    if table.not_planned:
        listed = ", ".join(map(ratio_text, table.not_planned))
        found.append(f"Not in this plan: the published {_ratios(len(table.not_planned))} {listed}.")
    return found


def not_planned(comparison: Comparison) -> list[str]:
    """Name the published tables that the plan lacks."""
    if not comparison.not_planned:
        return []
    pairs = [f"{architecture_title(pair[0])} / {dataset_title(pair[1])}" for pair in comparison.not_planned]
    return [f"In the reference and not in this plan: {', '.join(pairs)}."]


def how_to_read(table: ComparedTable) -> list[str]:
    """Explain the columns of a comparison table; empty if nothing in it is compared."""
    if not table.comparable:
        return []
    marked = any(cell.differs for cell in table.cells)
    star = f" {MARK_DIFFERS} differs by more than that, so many cells considered (Benjamini and Hochberg, 5 %)."
    return [
        "Mean ± sample standard deviation (seeds). diff.: ours minus published. z: diff. over its standard error, from "
        "the spread over seeds and the rounding of what is published. With 3 + 3 seeds it is Student's t with at least "
        "4 degrees of freedom: chance alone passes 2.78 at most one time in twenty." + (star if marked else "")
    ]


def _judgement(table: ComparedTable) -> str:
    if not table.published_tables and not table.matched and not table.not_planned:
        return "not in the reference, so there is nothing to compare"
    if not table.matched:
        ours = _images(cell.train_samples for cell in table.cells)
        return f"nothing to compare: no planned run has as many training images as a published one (planned: {ours})"
    runs = table.matched_runs
    done = sum(run.run.id not in table.missing for run in runs)
    if not done:
        return f"nothing to compare yet: none of the {len(runs)} runs that have a published counterpart has a result"
    if not table.comparable:
        return f"nothing to compare: no finished run has a published value beside it{_filled(table.gaps)}"
    so_far = f"; so far from {done} of {len(runs)} runs" if done < len(runs) else ""
    return f"{_agreement(table)}{so_far}{_filled(table.gaps)}"


def _agreement(table: ComparedTable) -> str:
    cells = table.comparable
    tested = [cell for cell in cells if cell.difference and cell.difference.p is not None]
    widest = max(cells, key=lambda cell: abs(cell.difference.value) if cell.difference else 0.0)
    if not tested:
        return (
            f"{_count(len(cells), 'mean')} compared, none judged, as no spread over seeds is known; the largest "
            f"difference is {_shown(widest)}"
        )
    unjudged = f"; {len(cells) - len(tested)} more not judged" if len(tested) < len(cells) else ""
    differing = sorted((cell for cell in tested if cell.differs), key=lambda cell: (_p(cell), -abs(_z(cell))))
    low = sum(_p(cell) < LEVEL for cell in tested)
    count = f"{low} at p < {LEVEL}, where chance alone gives up to {LEVEL * len(tested):.1f}{unjudged}"
    if differing:
        named = ", ".join(map(_shown, differing[:NAMED_CELLS]))
        more = f" and {len(differing) - NAMED_CELLS} more" if len(differing) > NAMED_CELLS else ""
        return (
            f"differs from the published values in {len(differing)} of {_count(len(tested), 'mean')}: {named}{more}; "
            f"{count}"
        )
    farthest = max(tested, key=lambda cell: abs(_z(cell)))
    largest = "all differences are 0" if _z(farthest) == 0 else f"the farthest apart is {_shown(farthest)}"
    if chance_of_so_many(low, len(tested)) < SURPRISE:
        return (
            f"close to the published values: no single one of {_count(len(tested), 'mean')} stands out, but too many "
            f"are off to be chance ({count}); {largest}"
        )
    return (
        f"agrees with the published values: none of {_count(len(tested), 'mean')} differs beyond seeds and rounding "
        f"({count}); {largest}"
    )


def _filled(gaps: Sequence[Gap]) -> str:
    """Say how many of the runs published without values have values here."""
    empty = sum(len(gap.seeds) for gap in gaps if gap.whole)
    if not empty:
        return ""
    filled, runs = sum(gap.filled for gap in gaps if gap.whole), _count(empty, "run")
    if not filled:
        return f"; the {runs} published without values {'has' if empty == 1 else 'have'} none here yet"
    return f"; {filled} of the {runs} published without values {'has' if filled == 1 else 'have'} values here"


def _gap(gap: Gap) -> str:
    seeds = ", ".join(str(seed) for seed in gap.seeds if seed is not None)
    where = f"ratio {ratio_text(gap.reference_ratio)} ({gap.train_samples:,} images" + (
        f", {'seeds' if len(gap.seeds) > 1 else 'seed'} {seeds})" if seeds else ")"
    )
    cause = gap.cause or "the reference names no cause"
    what = "none" if gap.whole else f"no {' and no '.join(METRIC_WORDS[metric] for metric in gap.metrics)}"
    if not gap.ours:
        return f"Published {what} at {where}: {cause}. Ours: none yet."
    values = ", ".join(
        f"{METRIC_WORDS[metric]} {gap.ours[metric].mean:.2f}"
        + (f" ± {std:.2f}" if (std := gap.ours[metric].std) is not None else "")
        for metric in gap.metrics
    )
    return f"Published {what} at {where}: {cause}. Ours: {values} ({_count(gap.filled, 'seed')})."


def _shown(cell: ComparedCell) -> str:
    """Format a cell with its difference: "val loss at 0.1 (+0.050, z = 2.1)"."""
    assert cell.difference is not None
    z = "" if cell.difference.z is None else f", z = {cell.difference.z:.1f}"
    return f"{METRIC_WORDS[cell.metric]} at {ratio_text(cell.ratio)} ({cell.difference.value:+.3f}{z})"


def _p(cell: ComparedCell) -> float:
    return 1.0 if cell.difference is None or cell.difference.p is None else cell.difference.p


def _z(cell: ComparedCell) -> float:
    return 0.0 if cell.difference is None or cell.difference.z is None else cell.difference.z


def _images(counts: Iterable[int]) -> str:
    return ", ".join(f"{count:,}" for count in dict.fromkeys(counts))


def _ratios(count: int) -> str:
    return "ratio" if count == 1 else "ratios"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
