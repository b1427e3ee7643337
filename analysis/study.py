"""A sweep as its readers see it: what was planned, the results that count, and why the others do not.

Tables, figures, comparison and report are functions of a `Study`. Whether a result is stale is the planner's to say; it
puts such a run among the missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from analysis import chapter
from analysis.errors import AnalysisError
from trainer.records.plan import PlannedRun
from trainer.records.result import Metric, Result


class Group(NamedTuple):
    """What one table 4.5 and on, one surface, one page of curves shows; variant: "" or the axes beyond the four."""

    architecture: str
    dataset: str
    variant: str

    @property
    def title(self) -> str:
        """Name it as a heading does: "ResNet-18 / CIFAR-10"."""
        names = (chapter.architecture_title(self.architecture), chapter.dataset_title(self.dataset), self.variant)
        return " / ".join(name for name in names if name)


class Standing(NamedTuple):
    """How one run stands: what the report shows of the planner's status, in plain words.

    epoch counts completed ones. log: a path. updated: the last sign of life.
    """

    id: str
    state: str
    cause: str | None = None
    message: str | None = None
    epoch: int = 0
    epochs: int = 0
    attempt: int = 0
    job: str | None = None
    node: str | None = None
    log: str | None = None
    updated: datetime | None = None
    best_val_accuracy: float | None = None


@dataclass(frozen=True)
class Cell:
    """One ratio of a group: a planned run a seed, and those of them that have a result; both by seed."""

    ratio: float
    planned: tuple[PlannedRun, ...]
    results: tuple[Result, ...]

    @property
    def complete(self) -> bool:
        """Tell whether every planned seed has a result."""
        return len(self.results) == len(self.planned)

    @property
    def seeds(self) -> str:
        """Say how many of its seeds there are: "3 seeds", "2 of 3 seeds"."""
        of = "" if self.complete else f"{len(self.results)} of "
        return f"{of}{len(self.planned)} seed{'s' if len(self.planned) > 1 else ''}"

    @property
    def train_samples(self) -> int:
        """Give the training images: of the results where there is one, else as planned."""
        return self.results[0].data.train_samples if self.results else self.planned[0].train_samples

    def best(self, metric: Metric) -> list[float]:
        """Give the best value of each result."""
        return [getattr(result.best, metric).value for result in self.results]

    def best_epochs(self, metric: Metric) -> list[int]:
        """Give the epoch of each result's best value."""
        return [getattr(result.best, metric).epoch for result in self.results]

    def curves(self, metric: Metric) -> list[list[float]]:
        """Give each result's history, (results, epochs); cut to the shortest where recipes are mixed."""
        histories: list[list[float]] = [getattr(result.history, metric) for result in self.results]
        epochs = min(map(len, histories), default=0)
        return [history[:epochs] for history in histories]


@dataclass(frozen=True)
class Study:
    """The runs of a plan, in its order, beside their results.

    results: by run id, those that count. missing: by run id, why there is none; every planned run is in one of the two.
    """

    name: str
    planned: Sequence[PlannedRun]
    results: Mapping[str, Result]
    missing: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.planned:
            raise AnalysisError("the plan holds no runs, so there is nothing to show")

    @cached_property
    def groups(self) -> dict[Group, list[PlannedRun]]:
        """Give the planned runs of each architecture, dataset and variant, in the chapter's order of tables."""
        pairs = chapter.number_pairs((run.run.architecture, run.run.dataset) for run in self.planned)
        found: dict[Group, list[PlannedRun]] = {}
        for architecture, dataset in pairs:
            for run in self.planned:
                if (run.run.architecture, run.run.dataset) == (architecture, dataset):
                    found.setdefault(Group(architecture, dataset, run.variant), []).append(run)
        return found

    def cells(self, group: Group) -> list[Cell]:
        """Give the cells of a group, ratios rising. Raises AnalysisError if two runs share ratio and seed."""
        by_ratio: dict[float, dict[int, PlannedRun]] = {}
        for run in self.groups[group]:
            of_ratio = by_ratio.setdefault(run.run.ratio, {})
            if run.run.seed in of_ratio:
                twice = (of_ratio[run.run.seed].run.id, run.run.id)
                raise AnalysisError(f"{group.title}: several runs for one ratio and seed: {', '.join(twice)}")
            of_ratio[run.run.seed] = run
        cells = []
        for ratio in sorted(by_ratio):
            planned = tuple(by_ratio[ratio][seed] for seed in sorted(by_ratio[ratio]))
            results = tuple(self.results[run.run.id] for run in planned if run.run.id in self.results)
            cells.append(Cell(ratio, planned, results))
        return cells
