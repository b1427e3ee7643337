"""Look at the disk and at the processes, and say how every run of a sweep stands."""

from collections.abc import Mapping

from slurm.executor import Executor
from slurm.local import LocalExecutor
from sweep.config import Sweep
from sweep.errors import MachineError
from sweep.status import Jobs, RunStatus, run_status
from sweep.store import Evidence, Submission, SweepFolder
from trainer.files import RecordError
from trainer.processes import is_alive


def survey(sweep: Sweep, executor: Executor | None = None) -> list[RunStatus]:
    """Give the state of every run, in the plan's order. Raises MachineError when the records cannot be read."""
    folder = SweepFolder(sweep.folder)
    evidence = folder.read_evidence(placed.cell.spec.run.id for placed in sweep.runs)
    jobs = Jobs(_holders(living_submissions(folder, executor)), _dead(evidence))
    return [
        run_status(
            placed,
            evidence[placed.cell.spec.run.id],
            jobs,
            sweep.fingerprints.get(placed.cell.spec.run.dataset),
            folder.run(placed.cell.spec.run.id),
        )
        for placed in sweep.runs
    ]


def living_submissions(folder: SweepFolder, executor: Executor | None = None) -> list[Submission]:
    """Give the submissions that have a job which lives, or of which that cannot be known; oldest first."""
    executor = executor or LocalExecutor()
    try:
        submissions = folder.read_submissions()
    except RecordError as error:
        raise MachineError(f"{error}; look at it, and remove it once none of its jobs runs") from error
    return [record for record in submissions if any(executor.alive(job) is not False for job in record.jobs)]


def _holders(living: list[Submission]) -> Mapping[str, Submission]:
    return {run_id: record for record in living for run_id in record.runs}


def _dead(evidence: Mapping[str, Evidence]) -> set[str]:
    return {
        run_id
        for run_id, found in evidence.items()
        if found.attempt and found.attempt.outcome is None and is_alive(found.attempt.process) is False
    }
