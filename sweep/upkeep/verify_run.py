"""One run's folder: everything in it read again, and what does not hold or does not fit together.

`read_run` looks, `judge_run` is a function from what was seen to findings. A run whose recipe or dataset is not the
plan's any more is no finding: `status` shows it.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from sweep.upkeep.problems import NEWER, Finding, Kind, Unusable, list_folder, read_or_say, say
from trainer.records.attempt import AttemptRecord
from trainer.records.checkpoint_file import (
    CheckpointError,
    CheckpointInfo,
    NewerCheckpointError,
    checkpoint_name,
    inspect,
)
from trainer.records.files import UNFINISHED
from trainer.records.process import is_alive
from trainer.records.result import Result
from trainer.records.run import CancelRequest, Commitment, Run, RunFolder, RunSpec
from trainer.records.status import ErrorRecord, Progress

FOLDERS = ("attempts", "checkpoints", "logs")
FILES = ("run.json", "result.json", "progress.json", "error.json", "cancel.json")
TRANSIENT = (".nfs", ".sweep-doctor-")  # NFS keeps open files under such names; the doctor's mark lives for seconds

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


def judge_run(spec: RunSpec, files: RunFiles, file: Path) -> list[Finding]:
    """Say what is wrong with a run's files. spec: the run as the sweep file has it; file: that file, for the advice."""
    judge = _Judge(spec.run, files, str(file))
    found = [*judge.damage(), *judge.misplaced(), *judge.contradictions(spec), *judge.cut_off()]
    found += [
        judge.finding(Kind.ORPHANED, name, "is nothing that sweep writes", "move it elsewhere, or remove it")
        for name in files.unknown
    ]
    return found


class _Judge:
    """The findings of one run, with the advice that its state calls for."""

    def __init__(self, run: Run, files: RunFiles, file: str) -> None:
        self.run = run
        self.files = files
        self.done = isinstance(files.result, Result) and files.result.run == run
        self.newest = max(files.attempts, default=0)
        self.whole = [name for name, info in files.checkpoints.items() if isinstance(info, CheckpointInfo)]
        goes_on = "goes on from its checkpoint" if self.whole else "trains it again"
        self.retry = f"'sweep retry {file} {run.id}' {goes_on}"
        self.clean = f"'sweep clean {file}' removes it"

    def finding(self, kind: Kind, name: str, what: str, remedy: str) -> Finding:
        return Finding(kind, f"runs/{self.run.id}/{name}", what, remedy, self.run.id)

    def damage(self) -> Iterator[Finding]:
        """Name what cannot be read, or is not what it should be."""
        files = self.files
        records = (files.commitment, files.result, files.progress, files.error, files.cancel)
        for name, record in zip(FILES, records, strict=True):
            if isinstance(record, Unusable):
                yield self.finding(Kind.DAMAGED, name, record.what, record.cure or self._without(name))
        for name, folder in files.folders.items():
            yield self.finding(Kind.DAMAGED, name, folder.what, folder.cure or self._without(name))
        for number, attempt in files.attempts.items():
            name = f"attempts/{number:04d}.json"
            if isinstance(attempt, Unusable):
                yield self.finding(Kind.DAMAGED, name, attempt.what, attempt.cure or self._without_attempt(number))
        for name, info in files.checkpoints.items():
            if isinstance(info, Unusable):
                remedy = info.cure or self._without_checkpoint()
                yield self.finding(Kind.DAMAGED, f"checkpoints/{name}", info.what, remedy)

    def misplaced(self) -> Iterator[Finding]:
        """Name what says that it is another run's."""
        files, run = self.files, self.run
        for name, record in (("run.json", files.commitment), ("result.json", files.result)):
            if isinstance(record, (Commitment, Result)) and record.run != run:
                other = record.run.id if record.run.id != run.id else "another run of the same name"
                yield self._of_other_run(name, other)
        told = {"progress.json": files.progress, "error.json": files.error, "cancel.json": files.cancel}
        for name, one in told.items():
            if one and not isinstance(one, Unusable) and one.run_id != run.id:
                yield self._of_other_run(name, one.run_id)
        for number, attempt in files.attempts.items():
            name = f"attempts/{number:04d}.json"
            if isinstance(attempt, Unusable):
                continue
            if attempt.run_id != run.id:
                yield self._of_other_run(name, attempt.run_id, self._without_attempt(number))
            elif attempt.number != number:
                words = f"says that it is attempt {attempt.number}"
                yield self.finding(Kind.INCONSISTENT, name, words, self._without_attempt(number))

    def contradictions(self, spec: RunSpec) -> Iterator[Finding]:
        """Name what does not fit the other files."""
        files, commitment = self.files, self.files.commitment
        missing = sorted(set(range(1, self.newest)) - set(files.attempts))
        if missing:
            words = f"lacks attempt {', '.join(map(str, missing))} of {self.newest}"
            remedy = "restore it from a copy if you have one; no run needs it, for the newest attempt counts"
            yield self.finding(Kind.INCONSISTENT, "attempts", words, remedy)
        if isinstance(commitment, Commitment):
            if isinstance(files.result, Result):
                yield from self._other_result(files.result, commitment)
            if isinstance(files.progress, Progress) and files.progress.epochs != commitment.training.epochs:
                words = f"counts {files.progress.epochs} epochs, run.json has {commitment.training.epochs}"
                yield self.finding(Kind.INCONSISTENT, "progress.json", words, self._without("progress.json"))
        elif commitment is None and self.whole and not self.done:
            words = "is missing beside checkpoints"
            remedy = f"{self._safely()}{self.retry} and writes it" if self.files.working is not True else self._wait()
            yield self.finding(Kind.INCONSISTENT, "run.json", words, remedy)
        for name, record in (("progress.json", files.progress), ("error.json", files.error)):
            later = self._of_later(record.attempt) if isinstance(record, (Progress, ErrorRecord)) else None
            if later:
                yield self.finding(Kind.INCONSISTENT, name, later, self._without(name))
        yield from self._other_checkpoints(spec)

    def cut_off(self) -> Iterator[Finding]:
        """Name an attempt that nobody works on and that does not say how it ended."""
        newest = self.files.attempts.get(self.newest)
        if not isinstance(newest, AttemptRecord):
            return
        name = f"attempts/{self.newest:04d}.json"
        if newest.outcome is None and self.files.working is False:
            if self.done:
                words = "is open beside the run's result, and its process is gone"
                yield self.finding(
                    Kind.INCONSISTENT, name, words, "nothing is lost, the result counts; it may be removed"
                )
            else:
                yield self.finding(Kind.HALF_WRITTEN, name, "is open, and its process is gone", self.retry)
        elif newest.outcome == "done" and self.files.result is None:
            words = f"is gone, though attempt {self.newest} ended well"
            yield self.finding(Kind.INCONSISTENT, "result.json", words, f"restore it from a copy, or {self.retry}")

    def _other_result(self, result: Result, commitment: Commitment) -> Iterator[Finding]:
        other = None
        if result.training != commitment.training:
            other = "recipe"
        elif result.data.fingerprint != commitment.data_fingerprint:
            other = "dataset"
        if other:
            words = f"is of another {other} than run.json"
            remedy = "find out which of the two was put here from elsewhere, and move it out of the sweep's folder"
            yield self.finding(Kind.INCONSISTENT, "result.json", words, remedy)

    def _other_checkpoints(self, spec: RunSpec) -> Iterator[Finding]:
        files = self.files
        training, fingerprint, than = spec.training.hash, None, "the sweep file"
        if isinstance(files.commitment, Commitment):
            training, fingerprint = files.commitment.training.hash, files.commitment.data_fingerprint
            than = "run.json"
        elif isinstance(files.result, Result):
            training, fingerprint, than = files.result.training_hash, files.result.data.fingerprint, "result.json"
        for name, info in files.checkpoints.items():
            if isinstance(info, Unusable):
                continue
            words = None
            of = info.commitment
            if of.run.id != self.run.id:
                words = f"is of {of.run.id}"
            elif of.training.hash != training:
                words = f"is of another recipe than {than}"
            elif fingerprint is not None and of.data_fingerprint != fingerprint:
                words = f"is of another dataset than {than}"
            elif name != checkpoint_name(info.history.epochs):
                words = f"holds {info.history.epochs} epochs"
            else:
                words = self._of_later(info.attempt)
            if words:
                name = f"checkpoints/{name}"
                yield self.finding(Kind.INCONSISTENT, name, words, self.clean if self.done else self._without(name))

    def _of_later(self, attempt: int) -> str | None:
        """Say that something is of an attempt later than the newest; None where it is not, or none can be seen."""
        if attempt <= self.newest or "attempts" in self.files.folders:
            return None
        return f"is of attempt {attempt}, and {f'the newest is {self.newest}' if self.newest else 'there is none'}"

    def _of_other_run(self, name: str, other: str, remedy: str | None = None) -> Finding:
        return self.finding(Kind.INCONSISTENT, name, f"is of {other}", remedy or self._without(name))

    def _without(self, name: str) -> str:
        """Advise on a file that the run is better off without."""
        if self.files.working is True:
            return self._wait()
        if name == "result.json":
            return f"{self._safely()}move it out of the sweep's folder, then {self.retry}"
        if self.done:
            return "nothing is lost, the result counts; it may be removed"
        return f"{self._safely()}move it out of the sweep's folder, then {self.retry}"

    def _without_attempt(self, number: int) -> str:
        if number != self.newest and not self.done:
            return "nothing needs it, for the newest attempt counts; leave it, or restore it from a copy"
        return self._without(f"attempts/{number:04d}.json")

    def _without_checkpoint(self) -> str:
        if self.done:
            return self.clean
        rest = f"from {max(self.whole)}" if self.whole else "from the first epoch"
        return f"the next attempt passes it over and goes on {rest}; it may be removed"

    def _wait(self) -> str:
        return "leave it while its run is in work, and verify again when that has ended"

    def _safely(self) -> str:
        """Warn where it cannot be seen whether a process works on the run."""
        return "" if self.files.working is False else "make sure that no process works on the run; "


def last_word(folder: RunFolder, attempts: dict[int, AttemptRecord | Unusable]) -> bool | None:
    """Tell whether the newest attempt's process works. One that ended meanwhile has written more than was read."""
    number = max(attempts, default=0)
    newest = attempts.get(number)
    if isinstance(newest, Unusable):
        return None
    if newest is None or newest.outcome is not None:
        return False
    alive = is_alive(newest.process)
    if alive is False:
        attempts[number] = read_or_say(folder.attempt(number), AttemptRecord) or newest
    return alive


def _entries(listed: list[Path] | Unusable) -> list[Path]:
    """Give a folder's entries, without those that others see to."""
    if isinstance(listed, Unusable):
        return []
    return [path for path in listed if not path.name.startswith(TRANSIENT) and not unfinished(path)]


def unfinished(path: Path) -> bool:
    """Tell by its name whether a file was being written."""
    return path.name.startswith(".") and path.name.endswith(UNFINISHED)


def _inspect(path: Path) -> CheckpointInfo | Unusable | None:
    try:
        return inspect(path)
    except NewerCheckpointError as error:
        return Unusable(str(error).removeprefix(f"{path}: "), NEWER)
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError):
            return say(path, error.__cause__)  # None: removed meanwhile
        return Unusable(str(error).removeprefix(f"{path}: "))
