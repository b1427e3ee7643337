"""Several runs in one process: one start of Python, one import of torch, then run after run."""

import logging

from trainer.commitment import UsageError
from trainer.data.prepared import DataError
from trainer.device import DeviceError
from trainer.files import RecordError
from trainer.records import Bundle, ExitCode, RunFolder
from trainer.run import Job, execute, record_refusal
from trainer.stop import StopSignal

log = logging.getLogger("trainer")


def execute_bundle(bundle: Bundle, task: int, job_id: str, restarts: int, stop: StopSignal) -> ExitCode:
    """Execute the runs of one task in turn; a run that fails does not end the others, a signal does.

    Runs that are done, cancelled or someone else's are passed over. Answers FAILED if any run failed here.
    """
    job = Job(job_id, bundle.submission, bundle.pool, restarts)
    failed = False
    for spec in bundle.tasks[task]:
        if stop.received:
            return ExitCode.INTERRUPTED
        folder = RunFolder(bundle.runs_folder / spec.run.id)
        if folder.cancel.exists():
            log.info("%s is cancelled", spec.run.id)
            continue
        try:
            outcome = execute(spec, folder, bundle.data, job, bundle.options, stop)
        except (UsageError, DataError, DeviceError, RecordError) as error:
            record_refusal(spec, folder, job, error)
            outcome = ExitCode.FAILED
        failed = failed or outcome is ExitCode.FAILED
    if stop.received:
        return ExitCode.INTERRUPTED
    return ExitCode.FAILED if failed else ExitCode.DONE
