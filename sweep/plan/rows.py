"""What a sweep comes to, and what is left of it: the grid, its cost, the difference with what is on disk. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from sweep.config.schema import PlacedRun, Sweep
from sweep.plan.cost import OPERATIONS, CostModel, shared_s
from sweep.status.state import RunStatus, State
from trainer.records.run import Run

# What `submit` executes without being asked by name. A failed run waits for `retry`, a stale one keeps its result.
SUBMITTED = (State.PLANNED, State.INTERRUPTED, State.CANCELLED)


class PlanRow(NamedTuple):
    """One run of the plan: a run as the sweep file has it, how it stands, and what it costs from its first epoch.

    estimate_s: by a clock on the wall, of a run that has so many gpus. basis, margin: as in `sweep.plan.cost.Estimate`.
    """

    placed: PlacedRun
    status: RunStatus
    estimate_s: float
    basis: str = OPERATIONS
    margin: float | None = None
    gpus: int = 1

    @property
    def id(self) -> str:
        return self.placed.id

    @property
    def run(self) -> Run:
        return self.placed.spec.run

    @property
    def remaining_s(self) -> float:
        """What is left of the estimate; an interrupted run goes on from where it was."""
        if self.status.state is State.DONE:
            return 0.0
        if self.status.state is State.STALE:
            return self.estimate_s
        return self.estimate_s * (1 - self.status.epoch / self.status.epochs)


def make_plan(sweep: Sweep, statuses: Sequence[RunStatus], costs: CostModel) -> list[PlanRow]:
    """Join the sweep's runs with how they stand and what they cost; statuses are in the sweep's order."""
    gpus = sweep.execution.gpus_per_run
    rows = []
    for placed, status in zip(sweep.runs, statuses, strict=True):
        estimate = costs.estimate(placed)
        # Runs of this sweep had as many GPUs as this one will: what they took is shared already.
        seconds = estimate.seconds if estimate.learned else shared_s(estimate.seconds, gpus)
        rows.append(PlanRow(placed, status, seconds, estimate.basis, estimate.margin, gpus))
    return rows
