"""Read everything again that a sweep has on disk, and say what is damaged, inconsistent, half-written or orphaned.

Changes nothing. What a living process is writing at this moment is no damage, nor is what cannot be known from here:
an open attempt on another host. Folders that were set aside, and what tables and reports write, are not read.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from slurm.code import damage
from slurm.jobs import Snapshot, Submission
from sweep.config.schema import Sweep
from sweep.status.folder import SweepFolder
from sweep.upkeep.problems import Finding, Kind, Unusable, list_folder, read_bytes, read_or_say
from sweep.upkeep.run_files import read_run
from sweep.upkeep.unfinished import OUTPUTS, find_leftovers, passing
from sweep.upkeep.verify_run import judge_run
from trainer.records.alive import IN_FLIGHT_S
from trainer.records.checkpoint_file import list_checkpoints
from trainer.records.code import NAME
from trainer.records.plan import PlanRecord
from trainer.records.run import Bundle

KNOWN = ("plan.json", "queue.json", "nodes.json", "submissions", "runs", "superseded", *OUTPUTS)
QUEUE = re.compile(r"queue-\d+\.json")  # of another user than the folder's
SET_ASIDE = re.compile(r".+\.\d{8}T\d{12}")
WORD = re.compile(rb"[0-9a-f]{8}")
ONCE_ENDED = "once none of its jobs is queued or running, "

Report = Callable[[str, int, int], None]


def verify(sweep: Sweep, report: Report | None = None) -> list[Finding]:
    """Find everything that is wrong with a sweep's files; report is told how many checkpoints have been read."""
    folder = SweepFolder(sweep.folder)
    found = [*_whole_sweep(sweep, folder), *_submissions(sweep, folder)]
    found += _runs(sweep, folder, report)
    found += _leftovers(sweep, folder)
    order = list(Kind)
    return sorted(found, key=lambda finding: order.index(finding.kind))


def _whole_sweep(sweep: Sweep, folder: SweepFolder) -> Iterator[Finding]:
    listed = list_folder(folder.path)
    if isinstance(listed, Unusable):
        yield _damaged(folder, folder.path, listed, "choose another '--output', or put the folder back")
        return
    plan = read_or_say(folder.plan, PlanRecord)
    remedy = f"move it away; the next 'sweep submit {sweep.file}' writes it anew"
    if isinstance(plan, Unusable):
        yield _damaged(folder, folder.plan, plan, remedy)
    elif plan is not None and plan.sweep != sweep.name:
        yield _inconsistent(folder, folder.plan, f"is of the sweep '{plan.sweep}'", remedy)
    queue = read_or_say(folder.queue, Snapshot)
    if isinstance(queue, Unusable):
        yield _damaged(folder, folder.queue, queue, "remove it; Slurm is asked again")
    for path in listed:
        if path.name not in KNOWN and not QUEUE.fullmatch(path.name) and not passing(path):
            yield _orphaned(folder, path)
    aside = list_folder(folder.path / "superseded")
    if isinstance(aside, Unusable):
        yield _damaged(folder, folder.path / "superseded", aside, "move it away; 'submit' makes the folder")
        return
    for path in aside:
        if not passing(path) and not (path.is_dir() and SET_ASIDE.fullmatch(path.name)):
            yield _orphaned(folder, path)


def _submissions(sweep: Sweep, folder: SweepFolder) -> Iterator[Finding]:
    listed = list_folder(folder.submissions)
    if isinstance(listed, Unusable):
        yield _damaged(folder, folder.submissions, listed, "move it away once none of its jobs is queued or running")
        return
    for path in listed:
        if passing(path):
            continue
        if path.name == "word":
            word = read_bytes(path)
            wrong = word if isinstance(word, Unusable) else None
            if isinstance(word, bytes) and not WORD.fullmatch(word):
                wrong = Unusable("is not the eight letters that begin the names of submissions")
            if wrong:
                yield _damaged(folder, path, wrong, "remove it; the next submission writes another")
        elif path.suffix == ".json":
            record = read_or_say(path, Submission)
            if isinstance(record, Unusable):
                remedy = f"{ONCE_ENDED}move it out of the sweep's folder; until then commands stop at it"
                yield _damaged(folder, path, record, remedy)
            elif record is not None and record.token != path.stem:
                remedy = f"{ONCE_ENDED}move it out of the sweep's folder"
                yield _inconsistent(folder, path, f"is the submission {record.token}", remedy)
        elif path == folder.code and path.is_dir():
            yield from _snapshots(sweep, folder)
        elif folder.submission(path.name) in listed and path.is_dir():
            yield from _bundles(sweep, folder, path)
        else:
            yield _orphaned(folder, path, ONCE_ENDED)


def _snapshots(sweep: Sweep, folder: SweepFolder) -> Iterator[Finding]:
    for path in sorted(folder.code.iterdir()):
        if passing(path):
            continue
        wrong = damage(path) if NAME.fullmatch(path.name) else None
        if wrong:
            remedy = f"{ONCE_ENDED}move it away; 'sweep retry {sweep.file} --new-code' goes on with the code of then"
            yield _damaged(folder, path, Unusable(wrong), remedy)
        elif not NAME.fullmatch(path.name):
            yield _orphaned(folder, path)


def _bundles(sweep: Sweep, folder: SweepFolder, jobs: Path) -> Iterator[Finding]:
    remedy = f"{ONCE_ENDED}move it away; 'sweep submit {sweep.file}' writes new ones for what is missing"
    arrays = list_folder(jobs)
    if isinstance(arrays, Unusable):
        yield _damaged(folder, jobs, arrays, remedy)
        return
    for array in arrays:
        if not array.name.isdecimal():
            if not passing(array):
                yield _orphaned(folder, array, ONCE_ENDED)
            continue
        path = array / "bundle.json"
        record = read_or_say(path, Bundle)
        if isinstance(record, Unusable):
            yield _damaged(folder, path if array.is_dir() else array, record, remedy)
        elif record is not None and record.submission != jobs.name:
            yield _inconsistent(folder, path, f"is of the submission {record.submission}", remedy)


def _runs(sweep: Sweep, folder: SweepFolder, report: Report | None) -> Iterator[Finding]:
    listed = list_folder(folder.runs)
    if isinstance(listed, Unusable):
        yield _damaged(folder, folder.runs, listed, f"move it away; 'sweep submit {sweep.file}' trains the runs again")
        return
    specs = {placed.id: placed.spec for placed in sweep.runs}
    total = sum(len(list_checkpoints(folder.run(path.name).checkpoints)) for path in listed) if report else 0
    read = 0

    def seen(path: Path) -> None:
        nonlocal read
        read += 1
        if report:
            report("checkpoints", read, max(read, total))

    for path in listed:
        if passing(path):
            continue
        if path.name not in specs:
            words = "is no run of the sweep file; no command counts it"
            remedy = "move it elsewhere, or remove it, unless the sweep file should have it"
            yield Finding(Kind.ORPHANED, _relative(folder, path), words, remedy)
            continue
        entries = list_folder(path)
        if isinstance(entries, Unusable):
            remedy = f"move it away, then 'sweep retry {sweep.file} {path.name}' trains the run again"
            yield _damaged(folder, path, entries, remedy, path.name)
        else:
            yield from judge_run(specs[path.name], read_run(folder.run(path.name), seen), sweep.file)


def _leftovers(sweep: Sweep, folder: SweepFolder) -> Iterator[Finding]:
    for leftover in find_leftovers(folder, [placed.id for placed in sweep.runs]):
        if leftover.age_s > IN_FLIGHT_S and not leftover.writer_may_live:
            yield Finding(
                Kind.HALF_WRITTEN,
                _relative(folder, leftover.path),
                "was being written when its writer was killed",
                f"nothing is lost; 'sweep clean {sweep.file}' removes it when it is an hour old",
                leftover.run_id,
            )


def _relative(folder: SweepFolder, path: Path) -> str:
    return str(path.relative_to(folder.path))


def _damaged(folder: SweepFolder, path: Path, found: Unusable, remedy: str, run: str | None = None) -> Finding:
    return Finding(Kind.DAMAGED, _relative(folder, path), found.what, found.cure or remedy, run)


def _inconsistent(folder: SweepFolder, path: Path, what: str, remedy: str) -> Finding:
    return Finding(Kind.INCONSISTENT, _relative(folder, path), what, remedy)


def _orphaned(folder: SweepFolder, path: Path, when: str = "") -> Finding:
    remedy = f"{when}move it elsewhere, or remove it"
    return Finding(Kind.ORPHANED, _relative(folder, path), "is nothing that sweep writes", remedy)
