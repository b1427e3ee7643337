"""Free what a sweep no longer needs: checkpoints of done runs, code that no run goes on with, leftovers.

And folders that were set aside. Never anything else of a run that is not done, and nothing behind a link. Every run is
looked at again right before its files go.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sweep.config.schema import PlacedRun, Sweep
from sweep.status.evidence import read_evidence
from sweep.status.folder import SweepFolder
from sweep.status.state import NO_JOBS, State, run_status
from sweep.upkeep.old_code import find_old_code, retire
from sweep.upkeep.unfinished import abandoned, find_leftovers, lies_within, regular
from sweep.upkeep.verify import SET_ASIDE
from trainer.records.alive import ABANDONED_S
from trainer.records.checkpoint_file import checkpoint_name, list_checkpoints
from trainer.records.files import RecordError
from trainer.records.run import RunFolder


class Freed(NamedTuple):
    """So many files of so many bytes."""

    files: int = 0
    size: int = 0

    def __str__(self) -> str:
        amount = f"{self.size / 1e9:.2f} GB" if self.size >= 1e7 else f"{self.size / 1e6:.2f} MB"
        return f"{self.files} file{'' if self.files == 1 else 's'}, {amount}"


class Needless(NamedTuple):
    """What can be freed: checkpoints by their done run's id, frozen code, leftovers, folders set aside."""

    checkpoints: dict[str, list[Path]]
    code: list[Path]
    leftovers: list[Path]
    aside: list[Path]


def find_needless(sweep: Sweep) -> Needless:
    """Look for what can be freed. Removes nothing."""
    folder = SweepFolder(sweep.folder)
    checkpoints = {placed.id: _checkpoints(sweep, placed) for placed in sweep.runs}
    return Needless(
        {run_id: paths for run_id, paths in checkpoints.items() if paths},
        find_old_code(folder),
        _old_leftovers(sweep),
        [path for path in sorted((folder.path / "superseded").glob("*")) if _is_aside(folder, path)],
    )


def amount(paths: Sequence[Path]) -> Freed:
    """Count the files at these paths, and in them where they are folders, and their bytes."""
    sizes = [found.st_size for path in paths for file in _files(path) if (found := regular(file))]
    return Freed(len(sizes), sum(sizes))


def free(sweep: Sweep, needless: Needless, *, superseded: bool) -> tuple[Freed, list[OSError]]:
    """Remove what is still needless when its turn comes. Returns what was freed, and what could not be."""
    folder = SweepFolder(sweep.folder)
    removed: list[Freed] = []
    problems: list[OSError] = []

    def remove(path: Path) -> None:
        size = amount([path])
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            removed.append(size)
        except FileNotFoundError:
            return  # its run has removed it
        except OSError as error:
            problems.append(error)

    for placed in sweep.runs:
        wanted = needless.checkpoints.get(placed.id, [])
        for path in set(wanted).intersection(_checkpoints(sweep, placed)) if wanted else ():
            remove(path)
    for path in needless.code:
        try:
            out = retire(folder, path)
        except (OSError, RecordError):  # someone else has removed it, or what names it cannot be read any more
            continue
        if out:
            remove(out)
    for path in set(needless.leftovers).intersection(_old_leftovers(sweep)) if needless.leftovers else ():
        remove(path)
    for path in needless.aside if superseded else ():
        if _is_aside(folder, path):
            remove(path)
    return Freed(sum(one.files for one in removed), sum(one.size for one in removed)), problems


def _checkpoints(sweep: Sweep, placed: PlacedRun) -> list[Path]:
    """The checkpoints of a run that is done, and whose process is not about to remove them itself.

    The one after the last epoch is not among them where the sweep file keeps it.
    """
    folder = SweepFolder(sweep.folder)
    run = folder.run(placed.id)
    final = checkpoint_name(placed.spec.training.epochs) if sweep.execution.keep_checkpoints == "final" else None
    paths = [path for path in list_checkpoints(run.checkpoints) if regular(path) and path.name != final]
    if not paths or not lies_within(run.checkpoints, folder.path):
        return []
    return paths if _is_done(sweep, placed, run) and abandoned(run) else []


def _is_done(sweep: Sweep, placed: PlacedRun, run: RunFolder) -> bool:
    """Whether a run is done, as `status` has it: its result validates, and is of the plan's recipe and data."""
    evidence = read_evidence(run)
    fingerprint = sweep.fingerprints.get(placed.spec.run.dataset)
    return run_status(placed, evidence, NO_JOBS, fingerprint, run).state is State.DONE


def _old_leftovers(sweep: Sweep) -> list[Path]:
    found = find_leftovers(SweepFolder(sweep.folder), [placed.id for placed in sweep.runs])
    return [one.path for one in found if one.age_s > ABANDONED_S and not one.writer_may_live]


def _is_aside(folder: SweepFolder, path: Path) -> bool:
    """Whether this is a run's folder that was set aside, and in which nobody works."""
    named = SET_ASIDE.fullmatch(path.name) is not None
    return named and path.is_dir() and lies_within(path, folder.path) and abandoned(RunFolder(path))


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir() or path.is_symlink():
        yield path
        return
    for place, _, names in os.walk(path):
        yield from (Path(place) / name for name in names)
