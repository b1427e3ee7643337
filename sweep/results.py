"""Which results of a sweep count, and why the others do not, for all commands that show results."""

from analysis.mixed import refuse_mixed
from analysis.study import Standing, Study
from sweep.config.schema import PlacedRun, Sweep
from sweep.plan.record import planned_run
from sweep.status.look import look
from sweep.status.state import RunStatus, State
from sweep.words import last_line
from trainer.records.result import Result
from trainer.records.run import Other, other_work


def read_results(sweep: Sweep, *, allow_mixed: bool = False) -> tuple[Study, list[Standing]]:
    """Look at the sweep: what its tables, figures and reports are made of, and how every planned run stands.

    allow_mixed: let in what is stale because of its recipe or dataset, and results that differ in precision or code.
    Raises MixedError where such differ and are not allowed.
    """
    seen = look(sweep)
    results: dict[str, Result] = {}
    missing: dict[str, str] = {}
    for placed, found in zip(sweep.runs, seen.statuses, strict=True):
        result = seen.results.get(found.id)
        if result is not None and (found.state is State.DONE or (allow_mixed and _same_run(result, placed))):
            results[found.id] = result
        else:
            missing[found.id] = why_missing(found).replace(f"{sweep.folder}/", "")
    study = Study(sweep.name, [planned_run(placed) for placed in sweep.runs], results, missing)
    if not allow_mixed:
        refuse_mixed(study)
    return study, [_standing(found) for found in seen.statuses]


def why_missing(found: RunStatus) -> str:
    """Why a run has no result that counts, in words."""
    reason = found.state.value
    if found.cause:
        reason += f", {found.cause.value}"
    if found.state in (State.RUNNING, State.STALLED, State.INTERRUPTED, State.CANCELLED):
        reason += f" after epoch {found.epoch} of {found.epochs}"
    told = found.state in (State.FAILED, State.STALE) and found.message
    return f"{reason}: {last_line(found.message)}" if told else reason


def _same_run(result: Result, placed: PlacedRun) -> bool:
    return other_work(result.commitment, placed.spec, None) is not Other.RUN


def _standing(found: RunStatus) -> Standing:
    """What a report shows of a run's status."""
    return Standing(
        id=found.id,
        state=found.state.value,
        cause=found.cause.value if found.cause else None,
        **{name: getattr(found, name) for name in Standing._fields[3:]},
    )
