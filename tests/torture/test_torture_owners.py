"""Two owners of one run's folder: one works, the other stands back, and one that was thought dead writes no more."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import LONG_S, ONE_THREAD, program, read, wait_for
from networks import REFERENCE
from torture_fixtures import Torture
from torture_runs import Trace, Trainers, arguments, hold_to_the_end, unfinished, whole_epochs

from trainer.records.attempt import AttemptRecord, ExitCode
from trainer.records.checkpoint_file import checkpoint_name, inspect
from trainer.records.files import read_json, write_json
from trainer.records.run import RunFolder
from trainer.records.status import Progress

SEED = 6
EPOCHS = 8
GHOST = ("unshare", "--uts", "sh", "-c", 'hostname ghost && exec "$@"', "sh")  # another host, as far as it knows


@pytest.fixture
def trainers() -> Iterator[Trainers]:
    """`python -m trainer`, as often as needed."""
    with Trainers() as started:
        yield started


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What an owner comes to whom nobody disturbs."""
    with Trainers() as trainers:
        return trainers.uninterrupted(tmp_path_factory.mktemp("alone") / "run", arguments(data, REFERENCE, EPOCHS))


def test_of_two_owners_started_together_exactly_one_trains(
    trainers: Trainers, data: Path, tmp_path: Path, alone: str, torture: Torture
) -> None:
    """Within 50 ms, on a fresh folder or after a dead owner: one attempt trains, to the history of a lone one; the
    other process stands back, or finds the run done.
    """
    call = arguments(data, REFERENCE, EPOCHS)
    rounds = torture.count(4, 100)

    def compete(number: int) -> tuple[bool, tuple[int, ...]]:
        draw = random.Random(f"{SEED}-{number}")
        output = tmp_path / str(number) / "run"
        killed = []
        if number % 3 == 2:
            dead = trainers.start(output, (*call, "--checkpoint-interval", 0))
            moment = output / draw.choice(("attempts/0001.json", "progress.json", "checkpoints"))
            wait_for(moment.exists, "the owner that dies")
            time.sleep(draw.uniform(0, 0.3))
            dead.kill()
            if dead.wait(LONG_S) == -signal.SIGKILL:
                killed = ["interrupted"]
        first = trainers.start(output, call)
        time.sleep(draw.uniform(0, 0.05))
        second = trainers.start(output, call)
        codes = tuple(sorted((first.wait(LONG_S), second.wait(LONG_S))))
        assert codes in ((ExitCode.DONE, ExitCode.STOOD_BACK), (ExitCode.DONE, ExitCode.DONE))
        hold_to_the_end(output, alone, *killed)
        assert len(list((output / "logs").iterdir())) == len(killed) + 1
        return bool(killed), codes

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(compete, range(rounds)))
    codes = Counter(codes for _killed, codes in ended)
    torture.say(
        f"{len(ended)}/{rounds} pairs of owners within 50 ms trained once "
        f"({codes[(0, 69)]} stood back, {codes[(0, 0)]} found it done; {sum(killed for killed, _codes in ended)} after "
        f"a dead owner; seed {SEED})"
    )


@pytest.mark.slow
def test_a_second_owner_stands_back_before_it_imports_torch(trainers: Trainers, data: Path, tmp_path: Path) -> None:
    """While another process trains, it takes a second one less time to leave than to import torch alone."""
    output = tmp_path / "run"
    call = arguments(data, REFERENCE, 2000)
    first = trainers.start(output, call)
    wait_for(lambda: (read(output / "progress.json") or {"epoch": 0})["epoch"] >= 1, "the first epoch")
    leaving, importing = [], []
    for _ in range(2):
        started = time.monotonic()
        assert trainers.start(output, call).wait(LONG_S) == ExitCode.STOOD_BACK
        leaving.append(time.monotonic() - started)
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", "import torch"], env=ONE_THREAD, check=True, timeout=LONG_S)
        importing.append(time.monotonic() - started)
    assert first.poll() is None
    assert min(leaving) < min(importing)


def test_a_node_thought_dead_comes_back_and_takes_nothing_from_its_successor(
    trainers: Trainers, data: Path, tmp_path: Path, alone: str, torture: Torture
) -> None:
    """Frozen at work, taken over from, woken: it leaves with 69, and has changed one file of its own at the most,
    the one it was at. The successor's checkpoints are all there, and it ends with the history of a lone one.
    """
    unshare = program("unshare", "util-linux")
    if os.geteuid() != 0 or subprocess.run([unshare, "--uts", "true"], check=False).returncode != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("another host name takes root, and leave to unshare")
    strace = program("strace", "strace")
    call = arguments(data, REFERENCE, EPOCHS, "--checkpoint-interval", 0)
    wakes = torture.count(1, 10)

    def haunt(number: int) -> int:
        """Freeze right after a checkpoint has its name and before the older ones go, or at any time."""
        draw = random.Random(f"{SEED}-{number}")
        output = tmp_path / str(number) / "run"
        folder = RunFolder(output)
        through: tuple[object, ...] = GHOST
        named = folder.checkpoints / checkpoint_name(2)
        if number % 2 == 0:  # what syncs the folder after the rename is held up until the signal is there
            lines = tmp_path / str(number) / "trace"
            through = (*Trace(strace, lines, delay_s=1, only=folder.checkpoints).through, *GHOST)
        first = trainers.start(output, call, through=through)
        if number % 2 == 0:
            wait_for(named.exists, "the checkpoint's name")
        else:
            epoch = draw.randint(1, 4)
            wait_for(lambda: (read(folder.progress) or {"epoch": 0})["epoch"] >= epoch, f"epoch {epoch}")
            time.sleep(draw.uniform(0, 0.3))
        first.send_signal(signal.SIGSTOP)
        time.sleep(1.5)  # until it stands still, the delay over
        _age(folder)
        reached = max((inspect(path).history.epochs for path in folder.checkpoints.glob("epoch-*")), default=0)
        second = trainers.start(output, call)
        ahead = folder.checkpoints / checkpoint_name(reached + (1 if number % 2 == 0 else draw.randint(1, 3)))
        wait_for(ahead.exists, "the successor to get ahead")
        second.send_signal(signal.SIGSTOP)  # so that every change is the first one's
        time.sleep(0.5)
        whole_epochs(output)
        before = _files(output)
        first.send_signal(signal.SIGCONT)
        assert first.wait(LONG_S) == ExitCode.STOOD_BACK
        changed = _changes(output, before)
        second.send_signal(signal.SIGCONT)
        assert second.wait(LONG_S) == 0
        hold_to_the_end(output, alone, "interrupted")
        return changed

    with ThreadPoolExecutor(2) as pool:
        changed = list(pool.map(haunt, range(wakes)))
    torture.say(
        f"{len(changed)}/{wakes} owners that were thought dead stood back when they woke "
        f"({sum(changed)} finished a file they were at; seed {SEED})"
    )


def _age(folder: RunFolder) -> None:
    """Put a frozen owner's signs of life an hour back, as its clock may be."""
    hour = timedelta(hours=1)
    progress = read_json(folder.progress, Progress)
    attempt = read_json(folder.attempt(1), AttemptRecord)
    assert progress is not None
    assert attempt is not None
    assert attempt.process.host == "ghost"
    write_json(folder.progress, progress.model_copy(update={"heartbeat": progress.heartbeat - hour}))
    write_json(folder.attempt(1), attempt.model_copy(update={"started": attempt.started - hour}))


def _files(output: Path) -> dict[Path, tuple[int, int, int]]:
    """Return what tells of a change, for every file that has its final name, the first owner's own log aside."""
    aside = {output / "logs" / "attempt-0001.log", *unfinished(output)}
    found = {path: path.stat() for path in output.rglob("*") if path.is_file() and path not in aside}
    return {path: (status.st_ino, status.st_mtime_ns, status.st_size) for path, status in found.items()}


def _changes(output: Path, before: dict[Path, tuple[int, int, int]]) -> int:
    """Hold what a woken owner changed to one file of its own."""
    after = _files(output)
    assert before.keys() <= after.keys(), "something is gone"
    changed = [path for path in after if before.get(path) != after[path]]
    assert len(changed) <= 1
    for path in changed:
        own = inspect(path).attempt if path.suffix == ".safetensors" else read(path).get("attempt")
        assert own == 1 or path.name == "0001.json"
    return len(changed)
