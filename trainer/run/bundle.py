"""Several runs in one process: one start of Python, one import of torch, then run after run."""

import logging

from trainer.data.prepared import DataError
from trainer.distributed.launch import Others
from trainer.loop.device import DeviceError, NodeError, is_broken
from trainer.records.attempt import ExitCode
from trainer.records.files import RecordError, disk_trouble
from trainer.records.run import Bundle, RunFolder
from trainer.run.checks import UsageError
from trainer.run.early_exit import Job
from trainer.run.execute import execute, record_refusal
from trainer.stop import StopSignal

log = logging.getLogger("trainer")


def execute_bundle(bundle: Bundle, task: int, job: Job, stop: StopSignal, *, after_gpu_fault: bool = False) -> ExitCode:
    """Execute the runs of one task in turn; a run that fails does not end the others, a signal does.

    Runs that are done, cancelled or someone else's are passed over. Answers FAILED if any run failed here, and
    GPU_FAULT if one left the GPU of no use to this process: the runs after it want a fresh one. after_gpu_fault: this
    is that one; where its first run breaks the GPU again, the others are left for another job.
    """
    others = Others(bundle.options.processes, stop) if bundle.options.processes > 1 else None
    try:
        return _execute_each(bundle, task, job, stop, others, after_gpu_fault)
    finally:
        if others:
            others.dismiss()


def _execute_each(
    bundle: Bundle, task: int, job: Job, stop: StopSignal, others: Others | None, after_gpu_fault: bool
) -> ExitCode:
    failed, worked = after_gpu_fault, not after_gpu_fault
    for spec in bundle.tasks[task]:
        if stop.received:
            return ExitCode.INTERRUPTED
        folder = RunFolder(bundle.runs_folder / spec.run.id)
        if folder.cancel.exists():
            log.info("%s is cancelled", spec.run.id)
            continue
        try:
            outcome = execute(spec, folder, bundle.data, job, bundle.options, stop, others)
        except (UsageError, DataError, DeviceError, RecordError) as error:
            record_refusal(spec, folder, job, error)
            if isinstance(error, NodeError):
                log.error("no run can be trained here; those that are left want another node")
                return ExitCode.FAILED
            outcome = ExitCode.FAILED
        except OSError as error:  # the folder takes no record of it either
            log.error("%s: %s", spec.run.id, disk_trouble(error, folder.path) or error)
            outcome = ExitCode.FAILED
        failed = failed or outcome is ExitCode.FAILED
        worked = worked or outcome is ExitCode.DONE
        if outcome is ExitCode.FAILED and is_broken(bundle.options.device):
            if worked:
                return ExitCode.GPU_FAULT
            log.error("the GPU fails a fresh process too; the runs that are left want another one")
            return ExitCode.FAILED
    if stop.received:
        return ExitCode.INTERRUPTED
    return ExitCode.FAILED if failed else ExitCode.DONE
