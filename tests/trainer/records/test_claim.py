"""One owner a run: real processes claim, die, come back, and none ever works beside another."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psutil
import pytest

from trainer.records import alive
from trainer.records.attempt import AttemptRecord, Cause
from trainer.records.base import now
from trainer.records.claim import Claim, StoodBack, take
from trainer.records.files import read_json, write_json
from trainer.records.process import Process, is_alive, this_process
from trainer.records.result import History
from trainer.records.run import RunFolder
from trainer.records.status import Progress
from trainer.stop import ClaimLost

pytestmark = pytest.mark.slow

RUN_ID = "resnet18-cifar10-r0.02-s42"
CONTENDERS = 8
ROUNDS = 20
WAIT_S = 60
ELSEWHERE = Process(host="a-host-that-is-not-this-one", pid=4242, started=1.0)
OWNER = """
import sys, time
from pathlib import Path
from trainer.records.claim import take
from trainer.records.run import RunFolder
take(RunFolder(Path(sys.argv[1])), run_id=sys.argv[2], job="owner", submission=sys.argv[3] or None)
print("mine", flush=True)
time.sleep(600)
"""


@pytest.fixture(params=["run", "a run, 50% 'ünïcode'"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> RunFolder:
    return RunFolder(tmp_path / request.param)


def claim_it(folder: RunFolder, submission: str | None = None) -> Claim:
    return take(folder, run_id=RUN_ID, job="test", submission=submission)


def record_of(folder: RunFolder, number: int) -> AttemptRecord:
    record = read_json(folder.attempt(number), AttemptRecord)
    assert record is not None
    return record


class Owner:
    """Another process that has claimed a run and sits on it."""

    def __init__(self, folder: RunFolder, submission: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder.path), RUN_ID, submission], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "mine\n"

    def kill(self) -> None:
        """Kill it and leave it unburied: its parent, this process, has not asked how it ended."""
        os.kill(self.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + WAIT_S
        while psutil.Process(self.process.pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def bury(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=WAIT_S)


@pytest.fixture
def owner(folder: RunFolder) -> Iterator[Owner]:
    found = Owner(folder)
    yield found
    found.bury()


def dead_record(folder: RunFolder, **changes: Any) -> AttemptRecord:
    """Leave the open attempt 1 of a process of this host that is gone."""
    gone = Process(host=socket.gethostname(), pid=os.getpid(), started=this_process().started - 1000)
    return open_attempt(folder, process=gone, **changes)


def open_attempt(folder: RunFolder, *, process: Process, **changes: Any) -> AttemptRecord:
    fields: dict[str, Any] = {
        "number": 1,
        "started": now() - timedelta(hours=1),
        "host": process.host,
        "job": "earlier",
        "run_id": RUN_ID,
        "submission": None,
        "process": process,
        "log": "log",
    }
    record = AttemptRecord(**{**fields, **changes})
    folder.attempts.mkdir(parents=True, exist_ok=True)
    write_json(folder.attempt(record.number), record)
    return record


def beat(folder: RunFolder, heartbeat: datetime, epoch: int = 7, attempt: int = 1) -> None:
    """Leave the progress of an attempt, last written at a moment."""
    numbers = [0.5] * epoch
    write_json(
        folder.progress,
        Progress(
            run_id=RUN_ID,
            attempt=attempt,
            job="earlier",
            host=ELSEWHERE.host,
            epoch=epoch,
            epochs=180,
            step=1,
            steps=2,
            started=heartbeat,
            heartbeat=heartbeat,
            start_epoch=0,
            history=History(**dict.fromkeys(History.model_fields, numbers)),
        ),
    )


def contend(parent: str, barrier: Barrier, answers: Queue) -> None:
    """Claim one folder after the other at the same moment as the others, and tell how each went."""
    outcomes = []
    for number in range(ROUNDS):
        barrier.wait(WAIT_S)
        try:
            outcomes.append(claim_it(RunFolder(Path(parent, str(number)))).record.number)
        except StoodBack:
            outcomes.append(0)
        except BaseException as error:  # whatever it is, the test must hear of it
            outcomes.append(repr(error))
    answers.put((os.getpid(), outcomes))
    barrier.wait(WAIT_S)  # nobody leaves, and so looks dead, before all are through


def test_of_processes_that_claim_at_the_same_moment_exactly_one_owns(tmp_path: Path) -> None:
    """8 real processes, 20 folders, half of them left behind by a dead owner: each folder gets one owner, no error."""
    for number in range(0, ROUNDS, 2):
        dead_record(RunFolder(tmp_path / str(number)))
    context = get_context("spawn")
    barrier, answers = context.Barrier(CONTENDERS), context.Queue()
    processes = [context.Process(target=contend, args=(str(tmp_path), barrier, answers)) for _ in range(CONTENDERS)]
    try:
        for process in processes:
            process.start()
        outcomes = dict(answers.get(timeout=WAIT_S) for _ in processes)
        for process in processes:
            process.join(WAIT_S)
    finally:
        for process in processes:
            process.kill()
    for number in range(ROUNDS):
        folder, expected = RunFolder(tmp_path / str(number)), 2 - number % 2
        won = {pid: rounds[number] for pid, rounds in outcomes.items() if rounds[number] != 0}
        assert list(won.values()) == [expected], number
        assert folder.attempt_numbers() == list(range(1, expected + 1))
        assert record_of(folder, expected).process.pid in won
        assert sorted(path.name for path in folder.attempts.iterdir()) == ["0001.json", "0002.json"][:expected]


def test_a_living_owner_is_respected(folder: RunFolder, owner: Owner) -> None:
    """Whoever comes second stands back, is told whose the run is, and leaves nothing behind."""
    with pytest.raises(StoodBack, match=f"process {owner.process.pid} on {socket.gethostname()} \\(owner\\)"):
        claim_it(folder)
    assert folder.attempt_numbers() == [1]
    assert record_of(folder, 1).outcome is None


def test_a_killed_owner_is_succeeded_and_its_attempt_closed(folder: RunFolder, owner: Owner) -> None:
    """The next number is taken; the dead attempt reads interrupted, killed, ended at its last heartbeat and epoch."""
    last = now() - timedelta(seconds=3)
    beat(folder, last, epoch=7)
    owner.bury()
    mine = claim_it(folder)
    assert mine.record.number == 2
    closed = record_of(folder, 1)
    assert (closed.outcome, closed.cause, closed.ended, closed.end_epoch) == ("interrupted", Cause.KILLED, last, 7)
    assert closed.message == f"process {owner.process.pid} on {socket.gethostname()} ended without a word"
    assert [record.number for record in mine.earlier()] == [1]
    mine.check()


def test_a_zombie_is_dead(folder: RunFolder, owner: Owner) -> None:
    """A killed process whose parent has not taken notice still has its pid, and owns nothing."""
    owner.kill()
    assert psutil.pid_exists(owner.process.pid)
    assert claim_it(folder).record.number == 2


def test_a_later_process_with_the_same_pid_is_not_the_owner(folder: RunFolder) -> None:
    """A pid is handed out again after a while; the time the process started tells the two apart."""
    record = dead_record(folder)
    assert record.process.pid == os.getpid()
    assert is_alive(this_process()) is True
    assert claim_it(folder).record.number == 2


def test_an_owner_that_died_before_its_first_heartbeat_did_no_epoch(folder: RunFolder) -> None:
    """Progress that an earlier attempt left is not this one's: it ended where and when it began."""
    folder.path.mkdir()
    beat(folder, now(), epoch=9, attempt=1)
    dead = dead_record(folder, number=2, start_epoch=5)
    assert claim_it(folder).record.number == 3
    closed = record_of(folder, 2)
    assert (closed.ended, closed.end_epoch) == (dead.started, 5)


def test_a_closed_attempt_gives_the_run_free_and_stays_as_it_was_closed(folder: RunFolder) -> None:
    """After a failure the same or another process may try again, and the failure stays on record."""
    first = claim_it(folder)
    first.close("failed", 3, Cause.EXCEPTION, "no more ink")
    assert claim_it(folder).record.number == 2
    closed = record_of(folder, 1)
    assert (closed.outcome, closed.cause, closed.message, closed.end_epoch) == (
        "failed",
        Cause.EXCEPTION,
        "no more ink",
        3,
    )


def test_a_superseded_owner_learns_it_and_writes_nothing_more(folder: RunFolder) -> None:
    """Once a later attempt exists, check, update and close raise ClaimLost and the record stays as it is."""
    mine = claim_it(folder)
    mine.check()
    open_attempt(folder, process=this_process(), number=2)
    before = folder.attempt(1).read_bytes()
    for attempt in (mine.check, lambda: mine.update(end_epoch=9), lambda: mine.close("done", 9)):
        with pytest.raises(ClaimLost, match="attempt 2 has taken"):
            attempt()
    assert folder.attempt(1).read_bytes() == before


def test_within_a_submission_a_run_has_one_attempt(folder: RunFolder) -> None:
    """A fellow worker stands back even when the attempt has ended; another submission, or a call by hand, goes on."""
    claim_it(folder, "token-a").close("failed", 0, Cause.EXCEPTION)
    with pytest.raises(StoodBack, match="has had its attempt in this submission"):
        claim_it(folder, "token-a")
    second = claim_it(folder, "token-b")
    assert second.record.number == 2
    second.close("interrupted", 0, Cause.KILLED)
    assert claim_it(folder, None).record.number == 3


def test_withdrawing_leaves_no_attempt(folder: RunFolder) -> None:
    """A claim under which nothing was done can be undone, and its number is given again."""
    claim_it(folder).withdraw()
    assert folder.attempt_numbers() == []
    assert claim_it(folder).record.number == 1


def test_an_owner_on_another_host_with_a_recent_heartbeat_is_respected(folder: RunFolder) -> None:
    """Where no process can be looked up, a heartbeat of the last minute is a living owner's, and asked only once."""
    open_attempt(folder, process=ELSEWHERE)
    beat(folder, now() - timedelta(seconds=alive.FRESH_S / 2))
    started = time.monotonic()
    with pytest.raises(StoodBack, match="process 4242 on a-host-that-is-not-this-one"):
        claim_it(folder)
    assert time.monotonic() - started < alive.SILENCE_S  # what watching it would take


def test_an_owner_on_another_host_that_has_just_begun_is_respected(folder: RunFolder) -> None:
    """Before its first heartbeat an owner has as long as a heartbeat lasts."""
    open_attempt(folder, process=ELSEWHERE, started=now())
    with pytest.raises(StoodBack):
        claim_it(folder)


def test_a_silent_owner_on_another_host_is_succeeded(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watched without a change for as long as four heartbeats, it is dead, and closed at its last heartbeat."""
    monkeypatch.setattr(alive, "SILENCE_S", 1.5)
    last = now() - timedelta(hours=2)
    open_attempt(folder, process=ELSEWHERE)
    beat(folder, last)
    started = time.monotonic()
    assert claim_it(folder).record.number == 2
    assert time.monotonic() - started >= 1.5
    closed = record_of(folder, 1)
    assert (closed.outcome, closed.cause, closed.ended) == ("interrupted", Cause.KILLED, last)


@pytest.mark.parametrize("wrong_by", [timedelta(hours=-3), timedelta(hours=3)], ids=["behind", "ahead"])
def test_an_owner_whose_clock_is_wrong_is_respected_while_its_heartbeats_change(
    folder: RunFolder, wrong_by: timedelta
) -> None:
    """Clocks need not agree: a heartbeat that moves while watched is a living owner's, hours off or not."""
    open_attempt(folder, process=ELSEWHERE)
    beat(folder, now() + wrong_by)
    beating = threading.Timer(0.5, lambda: beat(folder, now() + wrong_by))
    beating.start()
    with pytest.raises(StoodBack):
        claim_it(folder)
    beating.join()


def test_an_owner_that_ends_while_it_is_watched_keeps_its_own_last_word(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that was closed as failed while someone looked whether it lives stays failed, with its cause."""
    monkeypatch.setattr(alive, "SILENCE_S", 1.5)
    last_word = {"outcome": "failed", "cause": Cause.CUDA_OOM, "message": "too big", "ended": now(), "end_epoch": 9}
    record = open_attempt(folder, process=ELSEWHERE)
    beat(folder, now() - timedelta(hours=2))
    closed = record.model_copy(update=last_word)
    ending = threading.Timer(0.5, lambda: write_json(folder.attempt(1), closed))
    ending.start()
    assert claim_it(folder).record.number == 2
    ending.join()
    assert record_of(folder, 1) == closed


@pytest.mark.parametrize("content", ["{", '{"schema_version": 2}'])
def test_an_owner_whose_record_cannot_be_read_is_judged_by_its_heartbeat(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """A damaged record, or a newer program's, does not set a living owner's run free; a silent one's it does."""
    monkeypatch.setattr(alive, "SILENCE_S", 1.0)
    open_attempt(folder, process=ELSEWHERE)
    folder.attempt(1).write_text(content)
    beat(folder, now())
    with pytest.raises(StoodBack, match="cannot be read"):
        claim_it(folder)
    beat(folder, now() - timedelta(hours=2))
    assert claim_it(folder).record.number == 2
    assert folder.attempt(1).read_text() == content


def test_a_copy_beside_the_attempts_is_no_attempt(folder: RunFolder) -> None:
    """Only whole numbers count; what a user copied there disturbs nothing."""
    claim_it(folder)
    (folder.attempts / "0001 (copy).json").write_text("{}")
    assert folder.attempt_numbers() == [1]


def test_any_higher_attempt_supersedes(folder: RunFolder) -> None:
    """The highest number owns the folder, also when the one between was withdrawn."""
    mine = claim_it(folder)
    open_attempt(folder, process=this_process(), number=3)
    with pytest.raises(ClaimLost):
        mine.check()


def test_an_attempt_says_who_makes_it(folder: RunFolder) -> None:
    """attempts/0001.json names the process, the host, the job, the submission and the log, as its schema has them."""
    mine = claim_it(folder, "token-a")
    written = json.loads(folder.attempt(1).read_text(encoding="utf-8"))
    assert written["process"] == this_process().model_dump()
    assert (written["number"], written["run_id"], written["job"], written["submission"]) == (
        1,
        RUN_ID,
        "test",
        "token-a",
    )
    assert (written["outcome"], written["ended"], written["host"]) == (None, None, socket.gethostname())
    assert Path(written["log"]) == folder.log(1)
    assert mine.record == record_of(folder, 1)
