"""A run may be killed at any instant, any number of times: it ends with the history it would have had."""

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from conftest import LONG_S, program, read
from networks import REFERENCE
from torture_fixtures import Torture
from torture_runs import KilledRun, Trace, Trainers, arguments, outcome

SEED = 5
CASES = (("resnet18", 5), ("vit", 5), (REFERENCE, 10, "--replicas", 2), (REFERENCE, 8, "--no-augmentation"))
DELAY_S = 0.04  # within which a trainer is killed after a call
INTERVALS = (0, 0, 0.5, None)  # seconds between checkpoints; None for the default, which short runs do not reach


@pytest.fixture
def trainers() -> Iterator[Trainers]:
    """`python -m trainer`, as often as needed."""
    with Trainers() as started:
        yield started


def test_a_run_killed_at_any_instant_ends_with_the_uninterrupted_history(
    trainers: Trainers, data: Path, tmp_path: Path, torture: Torture
) -> None:
    """SIGKILL at random, several times in a row: no bad file under a final name, no work lost that was saved, the
    same result byte for byte, and its attempts tell of every kill that came after a claim.
    """
    cases = CASES[: torture.count(2, len(CASES))]
    calls = [arguments(data, *case) for case in cases]
    rows = _rows(torture.count(8, 200))

    def chain(number: int) -> tuple[Counter[str], int]:
        """Kill as often as the row is long; a run that finishes first is held to its end too, another one begun."""
        draw = random.Random(f"{SEED}-{number}")
        reference, duration = references[number % len(cases)]
        call = calls[number % len(cases)]
        hits: Counter[str] = Counter()
        lost = 0
        for turn in range(10 * rows[number]):
            run = KilledRun(tmp_path / f"{number}-{turn}" / "run")
            interval = draw.choice(INTERVALS)
            more = () if interval is None else ("--checkpoint-interval", interval)
            while hits.total() < rows[number]:
                process = trainers.start(run.output, (*call, *more))
                last = hits.total() + 1 == rows[number]
                _wait_for_the_moment(run, process, draw, duration, last=last, saves=interval is not None)
                process.kill()
                if process.wait(LONG_S) != -signal.SIGKILL:
                    break
                hits[run.look()] += 1
            trainers.finish(run.output, call)
            run.end(reference)
            lost = max(lost, run.lost if interval == 0 else 0)
            if hits.total() == rows[number]:
                break
        return hits, lost

    with ThreadPoolExecutor(2) as pool:
        references = list(pool.map(partial(_whole, trainers, tmp_path), range(len(cases)), calls))
        ended = list(pool.map(chain, range(len(rows))))
    hits = sum((hits for hits, _lost in ended), Counter[str]())
    assert hits.total() == sum(rows)
    torture.say(
        f"{hits.total()}/{sum(rows)} SIGKILLs at random instants ended with the uninterrupted history "
        f"({', '.join(f'{count} {where}' for where, count in hits.most_common())}; up to {max(rows)} in a row; "
        f"at most {max(lost for _hits, lost in ended)} epochs to do again with a checkpoint an epoch; seed {SEED})"
    )


def test_a_run_killed_after_any_of_its_calls_that_change_files_ends_with_the_uninterrupted_history(
    trainers: Trainers, data: Path, tmp_path: Path, torture: Torture
) -> None:
    """Killed between two of its writes, syncs, renames, links and removals, any two in turn, and killed likewise
    again while it goes on: the same as above.
    """
    strace = program("strace", "strace")
    call = arguments(data, REFERENCE, 3, "--checkpoint-interval", 0)
    whole = tmp_path / "whole" / "run"
    trace = Trace(strace, tmp_path / "whole" / "trace")
    trainers.finish(whole, call, through=trace.through)
    reference, calls = outcome(whole), trace.calls(whole)
    assert calls > 30
    if torture.long:  # the second kill is the earlier the less the first one has left to do
        rows = [(at, calls - at) for at in range(1, calls)]
    else:
        draw = random.Random(SEED)
        rows = [(draw.randrange(1, calls), *(draw.randrange(1, 20) for _ in range(3)))]

    def chain(number: int) -> list[int]:
        """Kill after so many calls, and again; give after how many it was."""
        run = KilledRun(tmp_path / str(number) / "run")
        hits = []
        for kill, limit in enumerate(rows[number]):
            trace = Trace(strace, tmp_path / str(number) / f"trace-{kill}", delay_s=DELAY_S)
            process = trainers.start(run.output, call, through=trace.through)
            deadline = time.monotonic() + LONG_S
            while trace.calls(run.output) < limit and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            process.kill()
            if process.wait(LONG_S) != -signal.SIGKILL:
                break
            hits.append(trace.calls(run.output))
            run.look()
        trainers.finish(run.output, call)
        run.end(reference)
        return hits

    with ThreadPoolExecutor(2) as pool:
        hits = list(pool.map(chain, range(len(rows))))
    assert all(hits), "a run ended before the call that it has"
    again = [hit for _first, *later in hits for hit in later]
    torture.say(
        f"{len(hits) + len(again)} SIGKILLs right after a call that changes files ended with the uninterrupted history "
        f"(after {len({first for first, *_later in hits})} of the {calls} calls of a first attempt, "
        f"{len(set(again))} of a later one; seed {SEED})"
    )


def _whole(trainers: Trainers, folder: Path, number: int, call: tuple[object, ...]) -> tuple[str, float]:
    """Train without a fault; give the outcome and how many seconds that takes."""
    started = time.monotonic()
    return trainers.uninterrupted(folder / f"whole-{number}" / "run", call), time.monotonic() - started


def _rows(kills: int) -> list[int]:
    """Share the kills out: how many in a row."""
    draw = random.Random(SEED)
    rows = [4, 4] if kills >= 8 else []
    while sum(rows) < kills:
        rows.append(min(draw.randint(1, 5), kills - sum(rows)))
    return rows


def _wait_for_the_moment(
    run: KilledRun, process: subprocess.Popen[str], draw: random.Random, duration: float, *, last: bool, saves: bool
) -> None:
    """Wait until a random instant: of the whole time, or soon after a sign that something short has begun."""
    saved = set(run.folder.checkpoints.glob("*"))
    signs: dict[str, tuple[Callable[[], bool], float]] = {
        "start": (lambda: True, duration),
        "claim": (lambda: len(run.folder.attempt_numbers()) > run.attempts, 0.3),
        "epoch": (lambda: (read(run.folder.progress) or {"attempt": 0})["attempt"] > run.attempts, duration / 4),
        "checkpoint": (lambda: set(run.folder.checkpoints.glob("*")) != saved, 0.5),
        "result": (lambda: bool(list(run.output.glob("*result.json*"))), 0.05),
    }
    kinds = ("start", "checkpoint", "result") if last else ("start", "start", "claim", "epoch", "checkpoint")
    if not saves:  # the run would come to its end first
        kinds = tuple(kind for kind in kinds if kind != "checkpoint")
    sign, longest = signs[draw.choice(kinds)]
    delay = draw.uniform(0, longest)
    deadline = time.monotonic() + LONG_S
    while not sign() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay)
