"""Cancel runs: leave each a request that its trainer, wherever it is, looks for every few seconds.

A Slurm job none of whose runs is wanted any more is cancelled as well, so that none waits in the queue for nothing.
"""

from collections.abc import Sequence

from slurm.commands import SlurmError
from slurm.jobs import Phase
from sweep.config.schema import Sweep
from sweep.errors import InputError, MachineError
from sweep.plan.rows import PlanRow
from sweep.status.folder import SweepFolder
from sweep.status.look import Look
from sweep.status.state import ON_ITS_WAY, State
from sweep.words import nearest_run
from trainer.records.base import now
from trainer.records.files import write_json
from trainer.records.run import CancelRequest

CANCELLABLE = (*ON_ITS_WAY, State.STALLED, State.INTERRUPTED)


def cancellable(rows: Sequence[PlanRow], names: Sequence[str], state: State | None) -> list[PlanRow]:
    """Choose the runs to cancel: the named ones, or all; of those the ones in a state that can be cancelled.

    Raises InputError for a name that is no run, or is nothing that could be cancelled.
    """
    if state is not None and state not in CANCELLABLE:
        raise InputError(
            f"a {state.value} run cannot be cancelled; these can: {', '.join(s.value for s in CANCELLABLE)}"
        )
    known = {row.id: row for row in rows}
    for name in names:
        if name not in known:
            raise InputError(f"no run '{name}' in this sweep{nearest_run(name, known)}")
        if known[name].status.state not in CANCELLABLE:
            raise InputError(f"{name} is {known[name].status.state.value}; there is nothing to cancel")
    among = [known[name] for name in names] if names else list(rows)
    return [row for row in among if row.status.state in ((state,) if state else CANCELLABLE)]


def request(sweep: Sweep, run_ids: Sequence[str]) -> None:
    """Leave the requests. Raises MachineError when the disk fails."""
    folder = SweepFolder(sweep.folder)
    try:
        for run_id in run_ids:
            run_folder = folder.run(run_id)
            run_folder.path.mkdir(parents=True, exist_ok=True)
            write_json(run_folder.cancel, CancelRequest(run_id=run_id, requested=now()))
    except OSError as error:
        raise MachineError(f"{sweep.folder}: the request could not be written: {error}") from error


def cancel_unwanted_jobs(look: Look, cancelled: Sequence[str]) -> int:
    """Cancel the jobs that only carry cancelled or ended runs; count them.

    Raises MachineError when Slurm does not answer: the requests stand, and each job ends when it finds them.
    """
    wanted = {status.id for status in look.statuses if status.state in CANCELLABLE} - set(cancelled)
    carriers = [job for run_id in cancelled if run_id in look.jobs for job in (look.jobs[run_id], *look.rivals[run_id])]
    jobs = {(job.submission, job.name, job.runs[0]): job for job in carriers if job.view.phase is not Phase.ENDED}
    unwanted = [job for job in jobs.values() if not wanted.intersection(job.runs)]
    try:
        return sum(
            executor.cancel([job for job in unwanted if job.executor == executor.name]) for executor in look.executors
        )
    except SlurmError as error:
        raise MachineError(f"{error}; the runs stop by themselves once their jobs look for the request") from error
