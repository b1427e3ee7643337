"""A run's signs of life are written beside its training: a slow disk holds nothing up, and what is found is heard."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import read, wait_for

from trainer.records.claim import Claim, take
from trainer.records.files import write_json
from trainer.records.result import History
from trainer.records.run import RunFolder
from trainer.run import pulse as pulse_module
from trainer.run.pulse import Pulse
from trainer.stop import Cancelled, ClaimLost

EPOCHS = 9


class Disk:
    """Writes that wait until they are let through; at_once: the most under way at a time."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.written: list[int] = []
        self.under_way = self.at_once = 0

    def write(self, path: Path, progress: Any) -> None:
        self.under_way += 1
        self.at_once = max(self.at_once, self.under_way)
        assert self.free.wait(30)
        write_json(path, progress)
        self.written.append(progress.epoch)
        self.under_way -= 1


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    return take(RunFolder(tmp_path / "run"), run_id="run", job="1", submission=None)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    slow = Disk()
    monkeypatch.setattr(pulse_module, "write_json", slow.write)
    yield slow
    slow.free.set()


def after(epoch: int) -> Any:
    """Return as much of a trainer as a pulse looks at, after so many epochs."""
    values = {name: [0.5] * epoch for name in History.model_fields}
    return SimpleNamespace(epoch=epoch, steps=4, history=History(**values))


def test_a_slow_disk_holds_up_no_epoch(claim: Claim, disk: Disk) -> None:
    """One write at a time; what was newest when the disk was ready again is written, and the last."""
    pulse = Pulse(claim.folder, claim, EPOCHS)
    for epoch in range(EPOCHS):
        pulse.beat(after(epoch), 4)
    assert disk.written == []
    disk.free.set()
    pulse.end()
    assert disk.written == [0, EPOCHS - 1]
    assert disk.at_once == 1
    assert read(claim.folder.progress)["epoch"] == EPOCHS - 1


def heard(pulse: Pulse, kind: type[Exception]) -> None:
    """Look as the loop does, at every step, until what the thread has found is raised."""

    def look() -> bool:
        try:
            pulse.beat_if_due(after(1), 1)
        except kind:
            return True
        return False

    pulse.beat(after(1), 0)
    wait_for(look, kind.__name__)


def test_a_cancelled_run_stops(claim: Claim) -> None:
    claim.folder.cancel.touch()
    heard(Pulse(claim.folder, claim, EPOCHS), Cancelled)
    assert not claim.folder.progress.exists()


def test_a_disk_that_fails_is_heard_of(claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, progress: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(pulse_module, "write_json", fail)
    heard(Pulse(claim.folder, claim, EPOCHS), OSError)


def test_a_run_that_was_taken_over_writes_no_more(claim: Claim) -> None:
    """Nor at its end, when there is a newer progress to write."""
    pulse = Pulse(claim.folder, claim, EPOCHS)
    write_json(claim.folder.attempt(2), claim.record.model_copy(update={"number": 2}))
    heard(pulse, ClaimLost)
    pulse.beat(after(2), 4)
    with pytest.raises(ClaimLost):
        pulse.end()
    assert not claim.folder.progress.exists()


def test_a_disk_that_fails_to_the_end_is_heard_of_once(claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run fails of it, and then sees its writes through once more: nothing is left to be written."""
    slow = threading.Event()

    def fail(path: Path, progress: object) -> None:
        assert slow.wait(30)
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(pulse_module, "write_json", fail)
    pulse = Pulse(claim.folder, claim, EPOCHS)
    pulse.beat(after(1), 4)
    pulse.beat(after(2), 4)
    slow.set()
    with pytest.raises(OSError, match="Input/output error"):
        pulse.end()
    pulse.end()
