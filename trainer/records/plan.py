"""plan.json: the resolved sweep as it was last submitted."""

from datetime import datetime

from trainer.records.base import Versioned
from trainer.records.run import RunSpec


class PlannedRun(RunSpec):
    """A run as plan.json keeps it, for those who read results without the sweep file.

    variant names its cell on the axes beyond the four, "" where there are none.
    """

    variant: str
    training_hash: str
    pool: str
    train_samples: int


class PlanRecord(Versioned):
    """plan.json: the resolved sweep as it was last submitted."""

    sweep: str
    created: datetime
    runs: list[PlannedRun]
