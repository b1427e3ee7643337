"""How an attempt ended, written by the attempt itself: from what ended it to its record and the exit code."""

import logging

from trainer.records.attempt import Cause, ExitCode
from trainer.records.claim import Claim, cut_off_again
from trainer.records.files import Reserve
from trainer.records.run import RunFolder
from trainer.run.failure import record_failure
from trainer.stop import Cancelled, ClaimLost, CutOff, Interrupted

log = logging.getLogger("trainer")


class LastWord:
    """The end of an attempt's record, and room on the disk held for it."""

    def __init__(self, folder: RunFolder, claim: Claim) -> None:
        self._folder = folder
        self._claim = claim
        self._reserve: Reserve | None = None

    def hold_room(self) -> None:
        """See that a disk that fills up can still be told of. Raises OSError where there is no room even now."""
        self._reserve = Reserve(self._folder.path)

    def write(self, reason: Exception | None, epoch: int) -> ExitCode:
        """Record how the attempt ended, after so many epochs; say so where even this cannot be written.

        reason: what ended it; None where the run is done.
        """
        if self._reserve:
            self._reserve.release()
        run_id = self._claim.record.run_id
        code = ExitCode.FAILED
        try:
            match reason:
                case None:
                    code = ExitCode.DONE
                    self._claim.close("done", epoch)
                case ClaimLost():
                    return _stand_back(reason)
                case CutOff() if cut_off_again(self._folder, self._claim.record.number, epoch):
                    record_failure(self._folder, self._claim, reason, epoch)
                case Interrupted():
                    log.warning("%s %s after %d epochs; the next call continues", run_id, reason, epoch)
                    code, told = ExitCode.INTERRUPTED, reason.told_to_stop
                    cause = Cause.LOST if isinstance(reason, CutOff) else Cause.KILLED
                    self._claim.close("interrupted", epoch, cause, str(reason), told_to_stop=told)
                case Cancelled():
                    log.warning("%s cancelled after %d epochs", run_id, epoch)
                    code = ExitCode.INTERRUPTED
                    self._claim.close("cancelled", epoch, None, str(reason))
                case _:
                    record_failure(self._folder, self._claim, reason, epoch)
        except ClaimLost as lost:
            return _stand_back(lost)
        except OSError as error:
            log.error("%s: how it ended could not be recorded: %s", run_id, error)
        return code


def _stand_back(reason: ClaimLost) -> ExitCode:
    log.error("%s; this process stops without writing", reason)
    return ExitCode.STOOD_BACK
