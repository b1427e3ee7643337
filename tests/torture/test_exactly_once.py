"""What the kill test of submitters is judged by sees each way in which a run can be lost or doubled."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exactly_once import Accounted, Remains

RUN = "small-cifar10-r1.0-s1"
TOKEN = "w-0001"  # noqa: S105
TAG = f"study.{TOKEN}.0"
DAY = "2026-01-01T00:00:"
ZERO_S = 1767225600.0  # that midnight


def attempt(number: int, started: int, ended: int, outcome: str) -> dict[str, Any]:
    return {
        "number": number,
        "started": f"{DAY}{started}Z",
        "ended": f"{DAY}{ended}Z",
        "outcome": outcome,
        "submission": TOKEN,
        "process": {"pid": 100 + number},
        "restarts": number - 1,
        "message": None,
        "told_to_stop": outcome == "interrupted",
    }


class Left:
    """What a run leaves that was requeued once, then done; each of its files can be changed before it is judged."""

    def __init__(self) -> None:
        self.attempts = [attempt(1, 12, 20, "interrupted"), attempt(2, 30, 40, "done")]
        self.result: dict[str, Any] | None = {"attempts": self.attempts, "hardware": {"pool": "cpu"}}
        self.intents = [self.intent(TOKEN, 10)]
        self.passes = {101: [15, 19], 102: [32, 38]}
        self.begun = [1, 2]
        self.accounted = [Accounted(TAG, "7", 0, ZERO_S + 28, ZERO_S + 41)]

    def intent(self, token: str, created: int) -> dict[str, Any]:
        asked = f"{DAY}{created}Z"
        array = {"tag": f"study.{token}.0", "pool": "cpu", "tasks": [[RUN]], "asked": asked, "job": "7"}
        return {"token": token, "created": asked, "arrays": [{**array, "refused": None}]}

    def judge(self, folder: Path) -> Remains:
        jobs = folder / "submissions" / TOKEN / "0"
        attempts = folder / "runs" / RUN / "attempts"
        for place in (jobs, attempts):
            place.mkdir(parents=True)
        for intent in self.intents:
            (folder / "submissions" / f"{intent['token']}.json").write_text(json.dumps(intent))
        for record in self.attempts:
            (attempts / f"{record['number']:04d}.json").write_text(json.dumps(record))
        if self.result:
            (attempts.parent / "result.json").write_text(json.dumps(self.result))
        lines = [f"{RUN} {pid} {ZERO_S + moment}\n" for pid, moments in self.passes.items() for moment in moments]
        lines.append(f"another 104 {ZERO_S + 18}\n")  # of the same task
        (jobs / "passes-0").write_text("".join(lines))
        said = [f"12:00 INFO {RUN} attempt {n} on cpu, float32: 80 images, from epoch 0 of 8\n" for n in self.begun]
        (jobs / "7_0_0_log.out").write_text("".join(said))
        return Remains(folder, self.accounted, [RUN])


def lose_result(left: Left) -> None:
    left.result = None


def finish_twice(left: Left) -> None:
    left.attempts[0]["outcome"] = "done"


def overlap_records(left: Left) -> None:
    left.attempts[0]["ended"] = f"{DAY}31Z"


def overlap_passes(left: Left) -> None:
    left.passes[101].append(33)


def train_without_claim(left: Left) -> None:
    left.passes[103] = [50]


def begin_again(left: Left) -> None:
    left.begun.append(2)


def leave_attempt_out(left: Left) -> None:
    left.result = {"attempts": left.attempts[1:], "hardware": {"pool": "cpu"}}


def send_early(left: Left) -> None:
    left.intents.append(left.intent("w-0002", 35))
    left.accounted.append(Accounted("study.w-0002.0", "7", 0, ZERO_S + 50, ZERO_S + 51))


def submit_twice(left: Left) -> None:
    left.accounted.append(Accounted(TAG, "8", 0, None, None))


def submit_unnoted(left: Left) -> None:
    left.accounted.append(Accounted("study.w-0009.0", "9", 0, None, None))


def note_another(left: Left) -> None:
    left.intents[0]["arrays"][0]["job"] = "6"


def note_refusal(left: Left) -> None:
    left.intents[0]["arrays"][0]["refused"] = "no"


def test_a_run_that_was_requeued_and_done_once_is_in_order(tmp_path: Path) -> None:
    """Two attempts after each other, one array: nothing lost, doubled or astray; and it is counted."""
    remains = Left().judge(tmp_path / "study")
    assert (remains.lost(), remains.doubled(), remains.strays()) == ({}, {}, [])
    assert remains.figures()["won"] == {"cpu of cpu": 1}


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (lose_result, "lost", "no result"),
        (finish_twice, "doubled", "began after attempt 1 was done"),
        (overlap_records, "doubled", "began before attempt 1 ended"),
        (overlap_passes, "doubled", "trained it at the same time"),
        (train_without_claim, "doubled", "without an attempt"),
        (begin_again, "doubled", "begun 2 times"),
        (leave_attempt_out, "doubled", "counts other attempts"),
        (send_early, "doubled", "was sent while"),
        (submit_twice, "strays", "was submitted as 7, 8"),
        (submit_unnoted, "strays", "in no intent"),
        (note_another, "strays", "noted as 6"),
        (note_refusal, "strays", "noted as 7, no"),
    ],
)
def test_each_fault_is_seen_as_what_it_is(
    damage: Callable[[Left], None], kind: str, words: str, tmp_path: Path
) -> None:
    """Lost, doubled or astray, and only that."""
    left = Left()
    damage(left)
    remains = left.judge(tmp_path / "study")
    found = {"lost": remains.lost(), "doubled": remains.doubled(), "strays": remains.strays()}
    assert words in str(found.pop(kind))
    assert not any(found.values())
