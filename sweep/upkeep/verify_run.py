"""What of one run's files does not hold or does not fit together: a function from what was read to findings. Pure.

A run whose recipe or dataset is not the plan's any more is no finding: `status` shows it.
"""

from collections.abc import Iterator
from pathlib import Path

from sweep.upkeep.problems import Finding, Kind, Unusable
from sweep.upkeep.run_files import FILES, RunFiles
from trainer.records.attempt import AttemptRecord
from trainer.records.checkpoint_file import CheckpointInfo, checkpoint_name
from trainer.records.result import Result
from trainer.records.run import Commitment, Other, RunSpec, other_work
from trainer.records.status import ErrorRecord, Progress


def judge_run(spec: RunSpec, files: RunFiles, file: Path) -> list[Finding]:
    """What is wrong with a run's files. spec: the run as the sweep file has it. file: that file, for the advice."""
    judge = _Judge(spec, files, str(file))
    found = [*judge.damage(), *judge.misplaced(), *judge.contradictions(), *judge.cut_off()]
    found += [
        judge.finding(Kind.ORPHANED, name, "is nothing that sweep writes", "move it elsewhere, or remove it")
        for name in files.unknown
    ]
    return found


class _Judge:
    """The findings of one run, with the advice that its state calls for."""

    def __init__(self, spec: RunSpec, files: RunFiles, file: str) -> None:
        self.spec = spec
        self.run = run = spec.run
        self.files = files
        self.result = files.result if isinstance(files.result, Result) else None
        self.commitment = files.commitment if isinstance(files.commitment, Commitment) else None
        self.done = self.result is not None and not self._of_another(self.result.commitment)
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
        for name, found in (("run.json", self.commitment), ("result.json", self.result and self.result.commitment)):
            if found and self._of_another(found):
                yield self._of_other_run(name, self._whose(found))
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

    def contradictions(self) -> Iterator[Finding]:
        """Name what does not fit the other files."""
        files, commitment = self.files, self.commitment
        missing = sorted(set(range(1, self.newest)) - set(files.attempts))
        if missing:
            words = f"lacks attempt {', '.join(map(str, missing))} of {self.newest}"
            remedy = "restore it from a copy if you have one; no run needs it, for the newest attempt counts"
            yield self.finding(Kind.INCONSISTENT, "attempts", words, remedy)
        if commitment:
            if self.result:
                yield from self._other_result(self.result, commitment)
            if isinstance(files.progress, Progress) and files.progress.epochs != commitment.training.epochs:
                words = f"counts {files.progress.epochs} epochs, run.json has {commitment.training.epochs}"
                yield self.finding(Kind.INCONSISTENT, "progress.json", words, self._without("progress.json"))
        elif files.commitment is None and self.whole and not self.done:
            words = "is missing beside checkpoints"
            remedy = f"{self._safely()}{self.retry} and writes it" if self.files.working is not True else self._wait()
            yield self.finding(Kind.INCONSISTENT, "run.json", words, remedy)
        for name, record in (("progress.json", files.progress), ("error.json", files.error)):
            later = self._of_later(record.attempt) if isinstance(record, (Progress, ErrorRecord)) else None
            if later:
                yield self.finding(Kind.INCONSISTENT, name, later, self._without(name))
        yield from self._other_checkpoints()

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
        other = other_work(result.commitment, commitment, commitment.data_fingerprint)
        if other and other is not Other.RUN:
            words = f"is of another {other.value} than run.json"
            remedy = "find out which of the two was put here from elsewhere, and move it out of the sweep's folder"
            yield self.finding(Kind.INCONSISTENT, "result.json", words, remedy)

    def _other_checkpoints(self) -> Iterator[Finding]:
        wanted, fingerprint, than = self.spec, None, "the sweep file"
        known = self.commitment or (self.result and self.result.commitment)
        if known:
            wanted, fingerprint = RunSpec(run=self.run, training=known.training), known.data_fingerprint
            than = "run.json" if self.commitment else "result.json"
        for name, info in self.files.checkpoints.items():
            if isinstance(info, Unusable):
                continue
            other = other_work(info.commitment, wanted, fingerprint)
            if other is Other.RUN:
                words: str | None = f"is of {self._whose(info.commitment)}"
            elif other:
                words = f"is of another {other.value} than {than}"
            elif name != checkpoint_name(info.history.epochs):
                words = f"holds {info.history.epochs} epochs"
            else:
                words = self._of_later(info.attempt)
            if words:
                name = f"checkpoints/{name}"
                yield self.finding(Kind.INCONSISTENT, name, words, self.clean if self.done else self._without(name))

    def _of_another(self, found: Commitment) -> bool:
        return other_work(found, self.spec, None) is Other.RUN

    def _whose(self, found: Commitment) -> str:
        return found.run.id if found.run.id != self.run.id else "another run of the same name"

    def _of_later(self, attempt: int) -> str | None:
        """Words for a file of an attempt later than the newest; None where it is not, or no attempts can be seen."""
        if attempt <= self.newest or "attempts" in self.files.folders:
            return None
        return f"is of attempt {attempt}, and {f'the newest is {self.newest}' if self.newest else 'there is none'}"

    def _of_other_run(self, name: str, other: str, remedy: str | None = None) -> Finding:
        return self.finding(Kind.INCONSISTENT, name, f"is of {other}", remedy or self._without(name))

    def _without(self, name: str) -> str:
        """Advise on a file that the run is better off without."""
        if self.files.working is True:
            return self._wait()
        if self.done and name != "result.json":
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
