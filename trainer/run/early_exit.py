"""Whether a run needs a trainer at all, seen before torch's second of imports: a second owner stands back at once."""

import logging
from typing import NamedTuple

from trainer.records.attempt import ExitCode
from trainer.records.checkpoint_file import remove_needless
from trainer.records.claim import StoodBack, close_done, look
from trainer.records.code import Code
from trainer.records.files import clear_unfinished
from trainer.records.run import Bundle, Options, RunFolder, RunSpec
from trainer.run.checks import UsageError, is_done

log = logging.getLogger("trainer")


class Job(NamedTuple):
    """What starts the attempt: the executor's name for the job, its submission (None by hand), the pool.

    restarts: how often the scheduler has started this job anew. code: what the submission was sent with.
    """

    id: str
    submission: str | None
    pool: str
    restarts: int = 0
    code: Code | None = None


def answer_at_once(spec: RunSpec, folder: RunFolder, job: Job, options: Options) -> ExitCode | None:
    """The answer for a run that is done, or that someone is at; None where it takes more than a look.

    What an owner left that was killed after the result is tidied up. Raises UsageError for a folder that holds
    something else, and OSError.
    """
    if is_done(folder, spec):
        log.info("%s is done", spec.run.id)
        if close_done(folder, spec.training.epochs):
            remove_needless(folder.checkpoints, options.keep_checkpoints, spec.training.epochs)
            for place in (folder.path, folder.attempts, folder.checkpoints):
                clear_unfinished(place)
        return ExitCode.DONE
    try:
        look(folder, run_id=spec.run.id, job=job.id, submission=job.submission, restarts=job.restarts)
    except StoodBack as error:
        log.info("%s", error)
        return ExitCode.STOOD_BACK
    return None


def all_settled(bundle: Bundle, task: int, job: Job) -> bool:
    """Whether each run of a task is done, cancelled, or someone else's."""
    folders = ((spec, RunFolder(bundle.runs_folder / spec.run.id)) for spec in bundle.tasks[task])
    return all(_is_settled(spec, folder, job, bundle.options) for spec, folder in folders)


def _is_settled(spec: RunSpec, folder: RunFolder, job: Job, options: Options) -> bool:
    if folder.cancel.exists():
        log.info("%s is cancelled", spec.run.id)
        return True
    try:
        return answer_at_once(spec, folder, job, options) is not None
    except (UsageError, OSError):
        return False  # it is recorded where the run's turn comes
