"""One run, executed: refused, left alone, or taken and given an attempt."""

import logging
from pathlib import Path

from trainer.data.prepared import open_dataset
from trainer.distributed.launch import Others
from trainer.loop.build import choose_images
from trainer.loop.device import choose_device, resolve_precision
from trainer.records.attempt import ExitCode
from trainer.records.claim import StoodBack, take
from trainer.records.recipe import sharing_problem
from trainer.records.run import Commitment, Options, RunFolder, RunSpec
from trainer.run.assignment import Assignment
from trainer.run.attempt import RunningAttempt
from trainer.run.checks import UsageError, check_commitment, is_done
from trainer.run.early_exit import Job, answer_at_once
from trainer.run.failure import log_file, record_failure
from trainer.stop import ClaimLost, StopSignal

log = logging.getLogger("trainer")


def execute(
    spec: RunSpec,
    folder: RunFolder,
    data: Path,
    job: Job,
    options: Options,
    stop: StopSignal,
    others: Others | None = None,
) -> ExitCode:
    """Train a run to its result, continuing from its newest good checkpoint.

    others: the processes to share the replicas with, where there are several. A run that is done is left alone. Raises
    UsageError, DataError or DeviceError, before anything is written, when the run cannot be what is asked for; every
    failure after that is recorded in the folder and answered by the exit code.
    """
    run = spec.run
    settled = answer_at_once(spec, folder, job, options)
    if settled is not None:
        return settled
    processes = others.group.size if others else 1
    problem = sharing_problem(spec.training, processes)
    if problem:
        raise UsageError(f"--processes: {problem}")
    dataset = open_dataset(data, run.dataset)
    device = choose_device(options.device, processes=processes)
    resolve_precision(spec.training.precision, device)
    commitment = Commitment(run=run, training=spec.training, data_fingerprint=dataset.manifest.fingerprint)
    check_commitment(folder, commitment)
    kept = choose_images(spec, dataset)
    try:
        claim = take(folder, run_id=run.id, job=job.id, submission=job.submission, restarts=job.restarts)
    except StoodBack as error:
        log.info("%s", error)
        return ExitCode.STOOD_BACK
    if is_done(folder, spec):  # finished by the previous owner while this process looked
        claim.withdraw()
        return ExitCode.DONE
    with log_file(folder.log(claim.record.number)):
        what = Assignment(commitment, folder, claim, dataset, kept, device, job.pool, options, job.code)
        return RunningAttempt(what, stop, others).run()


def record_refusal(spec: RunSpec, folder: RunFolder, job: Job, error: Exception) -> None:
    """Leave the reason in a run's folder when `execute` refused it and no one reads this process's output.

    Leaves it be when the run is someone else's by now. Raises OSError if the folder cannot be written.
    """
    try:
        claim = take(folder, run_id=spec.run.id, job=job.id, submission=job.submission, restarts=job.restarts)
        with log_file(folder.log(claim.record.number)):
            record_failure(folder, claim, error, end_epoch=0)
    except (StoodBack, ClaimLost) as reason:
        log.info("%s", reason)
