"""How a run failed, on record: its cause, the words for the user, and the attempt's own log."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.data.prepared import DataError
from trainer.loop.cause import cause_of
from trainer.loop.device import DeviceError
from trainer.loop.group import FellowError
from trainer.loop.trainer import DivergedError
from trainer.models.reference import ModelError
from trainer.records.base import now
from trainer.records.checkpoint_file import CheckpointError
from trainer.records.claim import Claim
from trainer.records.files import RecordError, disk_trouble, write_json
from trainer.records.run import RunFolder
from trainer.records.status import ErrorRecord
from trainer.run.checks import UsageError
from trainer.stop import CutOff

log = logging.getLogger("trainer")

# What says itself what is wrong: where it was raised would only distract.
FORESEEN = (
    *(CheckpointError, CutOff, DataError, DeviceError, DivergedError),
    *(FellowError, ModelError, RecordError, UsageError),
)


def record_failure(folder: RunFolder, claim: Claim, error: Exception, end_epoch: int) -> None:
    """Write error.json and close the attempt as failed."""
    record = claim.record
    cause = cause_of(error)
    trouble = disk_trouble(error, folder.path)
    message = f"{trouble}; once that is mended, the run goes on from its checkpoint" if trouble else str(error).strip()
    message = message or type(error).__name__
    unforeseen = None if trouble or isinstance(error, FORESEEN) else error
    kind = type(error).__name__
    words = (record.run_id, cause.value, end_epoch, kind, message)
    log.error("%s failed (%s) in epoch %d: %s: %s", *words, exc_info=unforeseen)
    claim.check()
    write_json(
        folder.error,
        ErrorRecord(
            run_id=record.run_id,
            cause=cause,
            exception=kind,
            message=message,
            traceback="".join(traceback.format_exception(error)),
            attempt=record.number,
            job=record.job,
            host=record.host,
            log=record.log,
            time=now(),
            passing=trouble is not None,
        ),
    )
    claim.close("failed", end_epoch, cause, message)


class _LogFile(logging.FileHandler):
    """An attempt's log. That its disk is full is no reason to print tracebacks: every line goes to stderr as well."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Go on without the line."""


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Write what is logged to the attempt's own file as well."""
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error.strerror)
        yield
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()
