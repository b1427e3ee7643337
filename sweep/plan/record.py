"""The plan as plan.json has it. Pure."""

from sweep.config.schema import PlacedRun, Sweep
from trainer.records.base import now
from trainer.records.plan import PlannedRun, PlanRecord


def planned_run(placed: PlacedRun) -> PlannedRun:
    """A run as plan.json has it."""
    spec = placed.spec
    return PlannedRun(
        run=spec.run,
        training=spec.training,
        variant=placed.variant,
        training_hash=spec.training.hash,
        pool=placed.pool,
        train_samples=placed.train_samples,
    )


def plan_record(sweep: Sweep) -> PlanRecord:
    """The whole of plan.json."""
    return PlanRecord(sweep=sweep.name, created=now(), runs=[planned_run(placed) for placed in sweep.runs])
