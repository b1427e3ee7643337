"""Start the runs that are to be executed: first the intent on disk, then the jobs.

Exactly once rests on three things. An intent is a file that only one process can create, so of two who submit at the
same moment one looks again. An array that Slurm gave no clear answer about is found by its tag later, or withdrawn
before its runs go into another. And every job claims a run before it trains it, whatever went wrong before.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from slurm.acceptance import Refused, Standing, Unclear, settle
from slurm.jobs import ArrayRecord
from slurm.limits import ClusterLimits
from slurm.local import LocalExecutor
from slurm.pools import LOCAL
from slurm.submission import send, unusable_folder
from sweep.config.schema import Cluster, Sweep
from sweep.errors import InputError, MachineError
from sweep.plan.record import plan_record
from sweep.plan.rows import PlanRow
from sweep.status.folder import Submission, SweepFolder
from sweep.status.look import Look
from sweep.status.state import State
from sweep.submit.arrays import plan_arrays
from sweep.submit.remedies import Change
from trainer.records.base import now
from trainer.records.claim import at_work, close_dead
from trainer.records.files import write_json
from trainer.records.process import this_process
from trainer.records.run import Bundle, Options, RunSpec, other_work


class Overtaken(Exception):
    """Someone else made a submission since the look this one was chosen by."""


class Sent(NamedTuple):
    """What became of a submission to Slurm: the arrays it has, and a sentence for each that it has not."""

    record: Submission
    problems: list[str]
    unclear: bool


def start_local(
    sweep: Sweep, rows: Sequence[PlanRow], look: Look, executor: LocalExecutor, workers: int, *, threads: int
) -> Submission:
    """Write the intent and start the workers, each computing with so many threads.

    Longest runs go first, so that the last worker to finish finishes early. A cancelled run that is submitted again is
    no longer cancelled; files of another recipe or dataset are set aside whole. Raises Overtaken, and MachineError when
    the disk or a process fails.
    """
    folder = SweepFolder(sweep.folder)
    try:
        record = _announce(sweep, folder, rows, look, executor.name, [])
        ordered = sorted(rows, key=lambda row: -row.remaining_s)
        options = Options(
            device=sweep.execution.device,
            processes=sweep.execution.gpus_per_run,
            threads=threads,
            checkpoint_interval_s=sweep.execution.checkpoint_interval_s,
            keep_checkpoints=sweep.execution.keep_checkpoints,
        )
        bundle = folder.bundle(record.token)
        write_json(bundle, _bundle(sweep, record.token, LOCAL, options, [[row.placed.spec for row in ordered]]))
        record = record.model_copy(update={"jobs": list(executor.start(bundle, workers))})
        write_json(folder.submission(record.token), record)
    except OSError as error:
        raise MachineError(f"{sweep.folder}: the submission could not be written: {error}") from error
    return record


def start_slurm(
    sweep: Sweep,
    cluster: Cluster,
    rows: Sequence[PlanRow],
    look: Look,
    limits: ClusterLimits,
    changes: Mapping[str, Change] | None = None,
) -> Sent:
    """Write the intent and send its arrays, one sbatch each. Raises Overtaken, InputError, MachineError.

    changes: by run id, what a retry asks for beyond the pool's. After an unclear answer nothing more is sent: the next
    command finds out what Slurm took.
    """
    folder = SweepFolder(sweep.folder.absolute())
    problem = unusable_folder(folder.path)
    if problem:
        raise InputError(problem)
    try:
        planned = plan_arrays(sweep, cluster, rows, limits, changes or {})
        record = _announce(sweep, folder, rows, look, "slurm", planned)
        specs = {row.id: row.placed.spec for row in rows}
        for number, array in enumerate(record.arrays):
            tasks = [[specs[run_id] for run_id in task] for task in array.tasks]
            options = _options(sweep, cluster, array.pool)
            workers = cluster.section.runs_per_gpu
            folder.job_folder(record.token, number).mkdir(parents=True, exist_ok=True)
            mps = cluster.pools[array.pool].mps
            bundle = _bundle(sweep, record.token, array.pool, options, tasks, workers, mps=mps)
            write_json(folder.bundle(record.token, number), bundle)
        return _send_all(folder, record, cluster.section.max_parallel)
    except OSError as error:
        raise MachineError(f"{sweep.folder}: the submission could not be written: {error}") from error


def _announce(
    sweep: Sweep,
    folder: SweepFolder,
    rows: Sequence[PlanRow],
    look: Look,
    executor: str,
    arrays: Sequence[ArrayRecord],
) -> Submission:
    """Write the intent, then make room for the runs it names. Raises Overtaken and OSError."""
    folder.submissions.mkdir(parents=True, exist_ok=True)
    folder.runs.mkdir(exist_ok=True)
    token = folder.next_token(look.submissions)
    tagged = [array.model_copy(update={"tag": f"{sweep.name}.{token}.{number}"}) for number, array in enumerate(arrays)]
    listed = [run_id for array in arrays for task in array.tasks for run_id in task] or [row.id for row in rows]
    record = Submission(
        token=token, created=now(), executor=executor, submitter=this_process(), runs=listed, arrays=tagged
    )
    if not folder.create_submission(record):
        raise Overtaken
    folder.job_folder(token).mkdir(parents=True, exist_ok=True)
    write_json(folder.plan, plan_record(sweep))
    _withdraw(folder, look)
    for row in rows:
        _make_room(folder, sweep, row)
    return record


def _send_all(folder: SweepFolder, record: Submission, max_parallel: int | None) -> Sent:
    arrays = list(record.arrays)
    problems: list[str] = []
    unclear = False

    def note(number: int, **changes: object) -> None:
        nonlocal record
        arrays[number] = arrays[number].model_copy(update=changes)
        record = record.model_copy(update={"arrays": list(arrays)})
        write_json(folder.submission(record.token), record)

    # max_parallel counts for a pool, also where its runs are in several arrays.
    pieces = {array.pool: sum(other.pool == array.pool for other in arrays) for array in arrays}
    for number, array in enumerate(arrays):
        runs = sum(map(len, array.tasks))
        if unclear:
            note(number, refused="not sent, for Slurm gave no clear answer to the one before")
            continue
        note(number, asked=now())
        share = max(1, max_parallel // pieces[array.pool]) if max_parallel else None
        job_folder = folder.job_folder(record.token, number)
        try:
            note(number, job=send(array, job_folder, folder.bundle(record.token, number), max_parallel=share))
        except Refused as error:
            note(number, refused=str(error))
            problems.append(f"pool '{array.pool}': Slurm refused {runs} runs: {error}")
        except Unclear as error:
            unclear = True
            problems.append(f"pool '{array.pool}': Slurm gave no clear answer about {runs} runs: {error}")
    return Sent(record, problems, unclear)


def _withdraw(folder: SweepFolder, look: Look) -> None:
    """Make sure that the arrays Slurm was found not to have do no work, should they come to light after all."""
    for submission in look.submissions:
        for number, array in enumerate(submission.arrays):
            if array.refused is not None:
                continue
            found = settle(array, look.submitting[submission.token], look.queue, now())
            path = folder.withdrawn(submission.token, number)
            if found.standing is Standing.REFUSED and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


def _options(sweep: Sweep, cluster: Cluster, pool: str) -> Options:
    """A GPU pool's runs insist on a GPU: falling back to the CPU would waste days unnoticed."""
    device = sweep.execution.device
    if device == "auto":
        device = "cpu" if cluster.pools[pool].device == "cpu" else "cuda"
    return Options(
        device=device,
        processes=sweep.execution.gpus_per_run,
        threads=cluster.pools[pool].cpus * sweep.execution.gpus_per_run,
        checkpoint_interval_s=sweep.execution.checkpoint_interval_s,
        keep_checkpoints=sweep.execution.keep_checkpoints,
    )


def _bundle(
    sweep: Sweep,
    token: str,
    pool: str,
    options: Options,
    tasks: list[list[RunSpec]],
    workers: int = 1,
    *,
    mps: bool = False,
) -> Bundle:
    return Bundle(
        submission=token,
        pool=pool,
        data=sweep.data.resolve(),
        runs_folder=SweepFolder(sweep.folder).runs.resolve(),
        options=options,
        workers=workers,
        mps=mps,
        tasks=tasks,
    )


def _make_room(folder: SweepFolder, sweep: Sweep, row: PlanRow) -> None:
    """Clear a run's folder of what would keep it from running: a cancel request, a dead attempt, other work.

    Other records that cannot be read stay: an attempt does without them and writes them anew.
    """
    run_folder = folder.run(row.id)
    run_folder.cancel.unlink(missing_ok=True)
    evidence = folder.read_evidence([row.id])[row.id]
    if evidence.result is not None and row.status.state is not State.STALE:
        return  # finished since the plan was made
    attempt = evidence.attempt
    if attempt and attempt.outcome is None:
        if attempt.number != row.status.attempt or at_work(attempt):
            return  # begun by someone else since the plan was made
        if row.status.state in (State.INTERRUPTED, State.FAILED) and row.status.cause:
            close_dead(
                run_folder,
                attempt.number,
                outcome="failed" if row.status.state is State.FAILED else "interrupted",
                cause=row.status.cause,
                message=row.status.message,
            )
    spec = row.placed.spec
    found = evidence.commitment
    other = other_work(found, spec, sweep.fingerprints.get(spec.run.dataset)) if found else None
    if evidence.result is not None or other:
        folder.set_aside(row.id)
    elif run_folder.result.exists():  # damaged: the run can do without, and may have checkpoints to go on from
        folder.set_aside(row.id, run_folder.result)
