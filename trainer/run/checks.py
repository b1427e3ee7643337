"""What a run's folder is for, and refusing to use it, or its data, for anything else. Writes nothing."""

import logging

from trainer.records.base import difference
from trainer.records.files import RecordError, read_json
from trainer.records.result import Result
from trainer.records.run import Commitment, Other, RunFolder, RunSpec, other_work

log = logging.getLogger("trainer")


class UsageError(Exception):
    """The call does not fit the run's folder or its data; the message says what to do."""


def is_done(folder: RunFolder, spec: RunSpec) -> bool:
    """Whether the folder holds the run's result. Raises UsageError if it is damaged or another run's."""
    try:
        result = read_json(folder.result, Result)
    except RecordError as error:
        raise UsageError(f"{error}; move it away to train the run again") from error
    if result is None:
        return False
    _refuse_other(folder, result.commitment, spec, None)
    return True


def check_commitment(folder: RunFolder, wanted: Commitment) -> None:
    """Refuse a folder that an earlier attempt began for something else.

    A record that cannot be read refuses nothing: it is written anew, and each checkpoint says itself what it is of.
    """
    try:
        found = read_json(folder.commitment, Commitment)
    except RecordError as error:
        log.warning("%s; it is written anew", error)
        return
    if found is None:
        return
    _refuse_other(folder, found, wanted, wanted.data_fingerprint)


def _refuse_other(folder: RunFolder, found: Commitment, wanted: RunSpec, fingerprint: str | None) -> None:
    other = other_work(found, wanted, fingerprint)
    if other is Other.DATASET:
        raise UsageError(
            f"{folder.path}: was begun on other data (fingerprint {found.data_fingerprint[:12]}, "
            f"now {fingerprint[:12] if fingerprint else 'none'}); use another --output or the earlier --data"
        )
    differs = difference((wanted.run, wanted.training), (found.run, found.training))
    if differs:
        raise UsageError(
            f"{folder.path}: holds a run with {differs.name} {differs.theirs}, this call has {differs.mine}; "
            "use another --output"
        )
