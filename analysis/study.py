"""A sweep as its readers see it: the planned runs, the results that count, and why the others are missing.

Tables, figures, comparison and report are functions of a `Study`. The planner decides which results are stale and
lists their runs as missing.
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
    """The runs shown in one metrics table, surface or curves figure. variant: "" or the axes beyond the four."""

    architecture: str
    dataset: str
    variant: str

    @property
    def title(self) -> str:
        """The heading: "ResNet-18 / CIFAR-10"."""
        names = (chapter.architecture_title(self.architecture), chapter.dataset_title(self.dataset), self.variant)
        return " / ".join(name for name in names if name)


class Standing(NamedTuple):
    """A run's status as the report shows it.

    epoch: how many are completed. log: a path. updated: when the run last reported.
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
    """One ratio of a group: a planned run per seed, and the results there are; both sorted by seed."""

    ratio: float
    planned: tuple[PlannedRun, ...]
    results: tuple[Result, ...]

    @property
    def complete(self) -> bool:
        """Whether every planned seed has a result."""
        return len(self.results) == len(self.planned)

    @property
    def seeds(self) -> str:
        """How many seeds have results, in words: "3 seeds", "2 present 3 seeds"."""
        present = "" if self.complete else f"{len(self.results)} of "
        return f"{present}{len(self.planned)} seed{'s' if len(self.planned) > 1 else ''}"

    @property
    def train_samples(self) -> int:
        """The number of training images: from a result if there is one, else as planned."""
        return self.results[0].data.train_samples if self.results else self.planned[0].train_samples

    def best(self, metric: Metric) -> list[float]:
        """List each result's best value."""
        return [getattr(result.best, metric).value for result in self.results]

    def best_epochs(self, metric: Metric) -> list[int]:
        """List the epoch of each result's best value."""
        return [getattr(result.best, metric).epoch for result in self.results]

    def curves(self, metric: Metric) -> list[list[float]]:
        """List each result's history, (results, epochs); cut to the shortest where recipes are mixed."""
        histories: list[list[float]] = [getattr(result.history, metric) for result in self.results]
        epochs = min(map(len, histories), default=0)
        return [history[:epochs] for history in histories]


@dataclass(frozen=True)
class Study:
    """The runs of a plan, in its order, and their results.

    results: those that count, by run id. missing: why there is none, by run id. Every planned run is in one of the two.
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
        """The planned runs by architecture, dataset and variant, in the chapter's table order."""
        pairs = chapter.number_pairs((run.run.architecture, run.run.dataset) for run in self.planned)
        found: dict[Group, list[PlannedRun]] = {}
        for architecture, dataset in pairs:
            for run in self.planned:
                if (run.run.architecture, run.run.dataset) == (architecture, dataset):
                    found.setdefault(Group(architecture, dataset, run.variant), []).append(run)
        return found

    def cells(self, group: Group) -> list[Cell]:
        """Collect a group's cells, ratios ascending. Raises AnalysisError if two runs share ratio and seed."""
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
