"""One run's folder, all of it read again: each file as its record, or as what is wrong with it. Looks only."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from sweep.upkeep.problems import NEWER, Unusable, list_folder, read_or_say, say
from sweep.upkeep.unfinished import passing
from trainer.records.alive import at_work
from trainer.records.attempt import AttemptRecord
from trainer.records.checkpoint_file import CheckpointError, CheckpointInfo, NewerCheckpointError, inspect
from trainer.records.result import Result
from trainer.records.run import CancelRequest, Commitment, RunFolder
from trainer.records.status import ErrorRecord, Progress

FOLDERS = ("attempts", "checkpoints", "logs")
FILES = ("run.json", "result.json", "progress.json", "error.json", "cancel.json")

Seen = Callable[[Path], None]


class RunFiles(NamedTuple):
    """What a run's folder holds: each file as its record, as what is wrong with it, or None where there is none.

    folders: those that cannot be listed. working: whether a process works on the run, None where it cannot be seen.
    """

    progress: Progress | Unusable | None = None
    error: ErrorRecord | Unusable | None = None
    cancel: CancelRequest | Unusable | None = None
    commitment: Commitment | Unusable | None = None
    checkpoints: Mapping[str, CheckpointInfo | Unusable] = {}
    attempts: Mapping[int, AttemptRecord | Unusable] = {}
    result: Result | Unusable | None = None
    folders: Mapping[str, Unusable] = {}
    unknown: tuple[str, ...] = ()
    working: bool | None = False


def read_run(folder: RunFolder, seen: Seen | None = None) -> RunFiles:
    """Read all of a run's folder; seen is told of each checkpoint that was read.

    In this order a run in work never contradicts itself: what refers to an attempt is read before the attempts, and
    the result, which comes before its attempt's end, after them.
    """
    progress = read_or_say(folder.progress, Progress)
    error = read_or_say(folder.error, ErrorRecord)
    cancel = read_or_say(folder.cancel, CancelRequest)
    listed = {name: list_folder(folder.path / name) for name in FOLDERS}
    folders = {name: found for name, found in listed.items() if isinstance(found, Unusable)}
    unknown = [path.name for path in _entries(list_folder(folder.path)) if path.name not in (*FOLDERS, *FILES)]
    checkpoints: dict[str, CheckpointInfo | Unusable] = {}
    for path in _entries(listed["checkpoints"]):
        if not path.match("epoch-*.safetensors"):
            unknown.append(f"checkpoints/{path.name}")
        elif found := _inspect(path):
            checkpoints[path.name] = found
            if seen:
                seen(path)
    unknown += [f"logs/{path.name}" for path in _entries(listed["logs"]) if not path.match("attempt-*.log")]
    attempts: dict[int, AttemptRecord | Unusable] = {}
    for path in _entries(list_folder(folder.attempts)):
        number = int(path.stem) if path.stem.isdecimal() else 0
        if path != folder.attempt(number):
            unknown.append(f"attempts/{path.name}")
        elif record := read_or_say(path, AttemptRecord):
            attempts[number] = record
    working = last_word(folder, attempts)
    commitment = read_or_say(folder.commitment, Commitment)
    result = read_or_say(folder.result, Result)
    return RunFiles(
        progress, error, cancel, commitment, checkpoints, attempts, result, folders, tuple(unknown), working
    )


def last_word(folder: RunFolder, attempts: dict[int, AttemptRecord | Unusable]) -> bool | None:
    """Whether the newest attempt's process works. One that ended meanwhile has written more than was read."""
    number = max(attempts, default=0)
    newest = attempts.get(number)
    if isinstance(newest, Unusable):
        return None
    working = at_work(newest)
    if newest and newest.outcome is None and working is False:
        attempts[number] = read_or_say(folder.attempt(number), AttemptRecord) or newest
    return working


def _entries(listed: list[Path] | Unusable) -> list[Path]:
    """A folder's entries, without those that are there for a moment only."""
    return [] if isinstance(listed, Unusable) else [path for path in listed if not passing(path)]


def _inspect(path: Path) -> CheckpointInfo | Unusable | None:
    try:
        return inspect(path)
    except NewerCheckpointError as error:
        return Unusable(error.reason, NEWER)
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError):
            return say(path, error.__cause__)  # None: removed meanwhile
        return Unusable(error.reason)
