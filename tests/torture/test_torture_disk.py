"""Disks that fill up, fail, forget and vanish under a run: nothing good is lost, and it goes on when that is mended."""

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import LONG_S, SUPPORT, read, wait_for
from networks import LARGE, LARGE_MB, REFERENCE
from torture_fixtures import Torture
from torture_runs import Trainers, arguments, outcome, whole_epochs

from trainer.records.checkpoint_file import list_checkpoints
from trainer.records.run import RunFolder

SEED = 5
EPOCHS = 5
MB = 1_000_000
DISK_FAULTS = Path(__file__).parent / "disk_faults"


class Disk:
    """A file system of its own in memory, of a size that can be changed."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        self.folder = folder
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", folder)

    def resize(self, size_mb: int) -> None:
        """Make room, or take it."""
        self._mount("-o", f"remount,size={size_mb}m", self.folder)

    def fill(self) -> None:
        """Leave no room at all."""
        with (self.folder / "filler").open("ab") as file:
            while self.free():
                try:
                    os.write(file.fileno(), b"x" * 4096 * 16)
                except OSError:
                    break

    def free(self) -> int:
        """Return the bytes left."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def end(self) -> None:
        """Unmount it, whoever still uses it."""
        subprocess.run(["umount", "--lazy", self.folder], check=True, timeout=60)

    def _mount(self, *arguments: object) -> None:
        subprocess.run(["mount", *map(str, arguments)], check=True, timeout=60)


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    """Mount file systems that are there for one test."""
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("only root can mount a file system of its own")
    made: list[Disk] = []

    def make(size_mb: int) -> Disk:
        made.append(Disk(tmp_path / f"disk-{len(made)}", size_mb))
        return made[-1]

    yield make
    for disk in made:
        disk.end()


@pytest.fixture
def trainers() -> Iterator[Trainers]:
    """Trainers that end with the test."""
    with Trainers() as found:
        yield found


@pytest.fixture(scope="module")
def call(data: Path) -> tuple[object, ...]:
    """What is trained, with a checkpoint after every epoch."""
    return (*arguments(data, REFERENCE, EPOCHS), "--checkpoint-interval", 0)


@pytest.fixture(scope="module")
def reference(call: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The result of a run on a good disk."""
    with Trainers() as trainers:
        return trainers.uninterrupted(tmp_path_factory.mktemp("reference") / "run", call)


def said_by(folder: RunFolder) -> str:
    """Return what the trainers of a run printed."""
    return folder.path.with_name(f"{folder.path.name}.said").read_text()


def hold_to_failure(folder: RunFolder, words: str) -> Any:
    """Check that the newest attempt says it failed for the disk, and why; give its error."""
    newest = read(folder.attempt(folder.attempt_numbers()[-1]))
    error = read(folder.error)
    assert newest["outcome"] == "failed"
    assert words in newest["message"]
    assert words in error["message"]
    assert error["passing"]
    assert error["attempt"] == newest["number"]
    return error


def test_a_full_disk_fails_the_run_with_its_reason_and_costs_nothing_good(
    make_disk: Callable[[int], Disk],
    trainers: Trainers,
    data: Path,
    tmp_path: Path,
    torture: Torture,
) -> None:
    """Too small for one, two or three checkpoints: failed, disk full, what was whole stays; with room it goes on."""
    call = (*arguments(data, LARGE, EPOCHS), "--checkpoint-interval", 0)
    reference = trainers.uninterrupted(tmp_path / "run", call)
    sizes = random.Random(SEED).sample(range(LARGE_MB // 4, 3 * LARGE_MB, 2), torture.count(2, 20))
    saved = []
    for size_mb in sizes:
        disk = make_disk(size_mb)
        folder = RunFolder(disk.folder / "run")
        # What it prints lies on the disk too, as a job's log does.
        assert trainers.start(folder.path, call).wait(LONG_S) == 1, size_mb
        hold_to_failure(folder, "the disk is full")
        saved.append(whole_epochs(folder.path))
        disk.resize(1000)
        trainers.finish(folder.path, call)
        assert outcome(folder.path) == reference
        attempts = read(folder.result)["attempts"]
        assert [attempt["outcome"] for attempt in attempts] == ["failed", "done"]
        assert attempts[1]["start_epoch"] == saved[-1]
        disk.resize(2000)
    torture.say(
        f"{len(saved)}/{len(sizes)} runs on disks of {min(sizes)} to {max(sizes)} MB failed as disk full with "
        f"{min(saved)} to {max(saved)} epochs saved, and went on from there to the same result (seed {SEED})"
    )


def test_a_disk_that_fills_up_between_checkpoints_is_told_of(
    make_disk: Callable[[int], Disk], trainers: Trainers, call: tuple[object, ...], reference: str, torture: Torture
) -> None:
    """Not a byte left when progress is written: the room held for it takes the reason."""
    disk = make_disk(10)
    folder = RunFolder(disk.folder / "run")
    process = trainers.start(folder.path, call)
    wait_for(lambda: bool(list_checkpoints(folder.checkpoints)), "a checkpoint")
    disk.fill()
    assert process.wait(LONG_S) == 1
    hold_to_failure(folder, "the disk is full")
    reached = whole_epochs(folder.path)
    assert reached >= 1
    (disk.folder / "filler").unlink()
    trainers.finish(folder.path, call)
    assert outcome(folder.path) == reference
    assert read(folder.result)["attempts"][1]["start_epoch"] == reached
    torture.say("1/1 runs whose disk another filled up failed with the reason and went on")


FOR_EVER = 10**6
# What fails: the write of a file, how, from the first to the last time; and what the run says of it.
PASSING = {
    "progress, once stale": ("progress.json", "ESTALE", 2, 2),
    "progress, four times": ("progress.json", "EIO", 2, 5),
    "checkpoint, once": ("epoch-000002.safetensors", "EIO", 1, 1),
    "checkpoint, four times stale": ("epoch-000002.safetensors", "ESTALE", 1, 4),
    "result, once": ("result.json", "EIO", 1, 1),
    "result, twice stale": ("result.json", "ESTALE", 1, 2),
    "claim, once stale": ("0001.json", "ESTALE", 1, 1),
}
LASTING = {
    "result on a full disk": ("result.json", "ENOSPC", 1, "the disk is full"),
    "checkpoint beyond the quota": ("epoch-000002.safetensors", "EDQUOT", 1, "the disk quota is used up"),
    "progress on a failing disk": ("progress.json", "EIO", 3, "the disk or its file server fails"),
    "progress on a lost mount": ("progress.json", "ESTALE", 3, "the file server has lost the folder"),
    "checkpoint on a disk gone read-only": ("epoch-000003.safetensors", "EROFS", 1, "the disk can only be read"),
}


class Faults(NamedTuple):
    """Faults to come: what to start a trainer through, and the file that notes each one that came."""

    through: tuple[object, ...]
    file: Path

    def came(self) -> int:
        """Count them."""
        return len(self.file.read_text().splitlines()) if self.file.exists() else 0


def failing(folder: RunFolder, *paths: str, error: str, first: int, last: int) -> Faults:
    """Have writes of a run's files fail."""
    file = folder.path.with_name("faults")
    told = json.dumps({"paths": paths, "error": error, "first": first, "last": last, "file": str(file)})
    path = os.pathsep.join([str(DISK_FAULTS), SUPPORT])
    return Faults(("env", f"PYTHONPATH={path}", f"DISK_FAULTS={told}"), file)


def test_what_passes_is_waited_out(
    trainers: Trainers, call: tuple[object, ...], reference: str, tmp_path: Path, torture: Torture
) -> None:
    """Stale handles and input/output errors that go away again leave no trace in the run."""
    chosen = random.Random(SEED).sample(sorted(PASSING), torture.count(2, len(PASSING)))
    for number, case in enumerate(chosen):
        folder = RunFolder(tmp_path / str(number) / "run")
        path, error, first, last = PASSING[case]
        faults = failing(folder, path, error=error, first=first, last=last)
        trainers.finish(folder.path, call, through=faults.through)
        assert faults.came() == last - first + 1, case
        assert outcome(folder.path) == reference, case
        assert [attempt["outcome"] for attempt in read(folder.result)["attempts"]] == ["done"], case
    torture.say(f"{len(chosen)}/{len(chosen)} passing faults of a file server were waited out (seed {SEED})")


def test_what_lasts_fails_the_run_with_its_reason(
    trainers: Trainers, call: tuple[object, ...], reference: str, tmp_path: Path, torture: Torture
) -> None:
    """A write that keeps failing ends the run as failed, in words; when it is mended the run goes on."""
    chosen = random.Random(SEED).sample(sorted(LASTING), torture.count(2, len(LASTING)))
    for number, case in enumerate(chosen):
        path, error, first, words = LASTING[case]
        folder = RunFolder(tmp_path / str(number) / "run")
        faults = failing(folder, path, error=error, first=first, last=FOR_EVER)
        assert trainers.start(folder.path, call, through=faults.through).wait(LONG_S) == 1, case
        assert faults.came()
        assert "Traceback" not in said_by(folder), case
        hold_to_failure(folder, words)
        reached = whole_epochs(folder.path)
        trainers.finish(folder.path, call)
        assert outcome(folder.path) == reference, case
        assert read(folder.result)["attempts"][1]["start_epoch"] == reached, case
    torture.say(f"{len(chosen)}/{len(chosen)} lasting faults failed the run with their reason (seed {SEED})")


def test_a_disk_that_takes_no_word_at_all_is_told_of_on_stderr(
    trainers: Trainers, call: tuple[object, ...], reference: str, tmp_path: Path, torture: Torture
) -> None:
    """Where neither error.json nor the attempt's record can be written, exit code and output say it."""
    folder = RunFolder(tmp_path / "run")
    paths = ("progress.json", "error.json", "0001.json")
    faults = failing(folder, *paths, error="EROFS", first=3, last=FOR_EVER)
    assert trainers.start(folder.path, call, through=faults.through).wait(LONG_S) == 1
    said = said_by(folder)
    assert "the disk can only be read" in said
    assert "how it ended could not be recorded" in said
    assert "Traceback" not in said
    trainers.finish(folder.path, call)
    assert outcome(folder.path) == reference
    torture.say("1/1 runs on a disk that took no word at all said so on stderr and went on")


def test_a_folder_that_vanishes_stops_its_run_and_it_goes_on_where_it_comes_back(
    trainers: Trainers, call: tuple[object, ...], reference: str, tmp_path: Path, torture: Torture
) -> None:
    """Moved away in the middle: exit 1 and a sentence, nothing is written in its place; moved back, it goes on."""
    folder, away = RunFolder(tmp_path / "run"), tmp_path / "elsewhere"
    process = trainers.start(folder.path, call)
    wait_for(lambda: bool(list_checkpoints(folder.checkpoints)), "a checkpoint")
    folder.path.rename(away)
    assert process.wait(LONG_S) == 1
    assert "the folder has vanished" in said_by(folder)
    assert "Traceback" not in said_by(folder)
    assert not folder.path.exists()
    away.rename(folder.path)
    reached = whole_epochs(folder.path)
    trainers.finish(folder.path, call)
    assert outcome(folder.path) == reference
    assert read(folder.result)["attempts"][-1]["start_epoch"] == reached
    torture.say("1/1 runs whose folder vanished stopped with a sentence and went on when it was back")
