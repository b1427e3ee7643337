"""Whole runs of `python -m trainer`: two uninterrupted, one resumed after SIGTERM, one resumed after SIGKILL.

Several runs share the GPU: the question is whether they agree, not how fast they are.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.gpu_probe.setting import REPOSITORY, SEED, Answer, Combination, Setting, combinations, environment
from trainer.records.files import RecordError, read_json
from trainer.records.result import METRICS, History, Result
from trainer.records.run import RunFolder
from trainer.records.status import Progress

AT_ONCE = 8
WAYS = ("first", "second", "term", "kill")
RUN_S = 100.0
NOT_RECORDED = "could not be recorded"


def run_all(setting: Setting, answer: Answer) -> None:
    """Train every network at every size in fp32 and auto, in four ways each, and compare the histories."""
    wanted = [(one, way) for one in combinations(("auto", "fp32")) for way in WAYS]
    chosen = wanted[: len(WAYS)] if setting.tiny else wanted
    found: dict[tuple[Combination, str], dict[str, Any]] = {}

    def execute(work: tuple[Combination, str]) -> None:
        one = work[0]
        try:
            found[work] = _execute(*work, setting)
        except (subprocess.TimeoutExpired, RecordError, OSError) as error:
            found[work] = {"problem": f"{type(error).__name__}: {error}"}
        first = _history(_folder(one, "first", setting))
        done = [way for way in WAYS if (one, way) in found]
        answer(
            str(one),
            {way: found[one, way] | compared(first, _history(_folder(one, way, setting))) for way in done},
        )

    with ThreadPoolExecutor(2 if setting.tiny else AT_ONCE) as pool:
        list(pool.map(execute, chosen))


def compared(reference: History | None, history: History | None) -> dict[str, Any]:
    """Compare two histories: whether they are equal bit for bit, and each metric's largest difference."""
    if reference is None or history is None:
        return {"equal": None}
    pairs = {name: (getattr(reference, name), getattr(history, name)) for name in METRICS}
    return {
        "equal": all(mine == theirs for mine, theirs in pairs.values()),
        "equal_epochs": _equal_epochs(list(pairs.values())),
        "most": {
            name: max((abs(a - b) for a, b in zip(mine, theirs, strict=False)), default=0.0)
            for name, (mine, theirs) in pairs.items()
        },
    }


def _equal_epochs(pairs: Sequence[tuple[list[float], list[float]]]) -> int:
    """Count the epochs before the first that differs in any metric."""
    epochs = min(len(mine) for mine, _ in pairs)
    return next((e for e in range(epochs) if any(mine[e] != theirs[e] for mine, theirs in pairs)), epochs)


def _execute(one: Combination, way: str, setting: Setting) -> dict[str, Any]:
    folder = _folder(one, way, setting)
    began = time.monotonic()
    process = _start(one, folder, setting)
    found: dict[str, Any] = {}
    try:
        if way in ("term", "kill"):
            found["ended_in_epoch"] = _await_epoch(process, folder, setting.epochs // 3)
            process.send_signal(signal.SIGTERM if way == "term" else signal.SIGKILL)
            _, stderr = process.communicate(timeout=RUN_S)
            found["code_of_the_ended"] = process.returncode
            process = _start(one, folder, setting)
        _, stderr = process.communicate(timeout=RUN_S)
    finally:
        process.kill()
    logs = "".join(path.read_text(errors="replace") for path in sorted(RunFolder(folder).logs.glob("*.log")))
    found |= {"code": process.returncode, "not_recorded": NOT_RECORDED in logs}
    found["said"] = [line for line in logs.splitlines() if " WARNING " in line or " ERROR " in line][:8]
    if process.returncode:
        found["words"] = stderr[-2000:]
    result = read_json(RunFolder(folder).result, Result) if process.returncode == 0 else None
    if result:
        found |= {
            "precision": result.hardware.precision,
            "attempts": [[one.start_epoch, one.end_epoch] for one in result.attempts],
            "train_s": result.timing.train_seconds,
            "evaluation_s": result.timing.evaluation_seconds,
            "total_s": result.timing.total_seconds,
            "wall_s": round(time.monotonic() - began, 2),
            "val_accuracy": result.history.val_accuracy[-1],
        }
    return found


def _start(one: Combination, folder: Path, setting: Setting) -> "subprocess.Popen[str]":
    what = ["--architecture", one.architecture, "--dataset", one.dataset, "--ratio", "1.0", "--seed", str(SEED)]
    where = ["--data", str(setting.data(setting.few)), "--output", str(folder), "--device", setting.device]
    recipe = ["--epochs", str(setting.epochs), "--batch-size", str(setting.batch), "--precision", one.precision]
    how = ["--checkpoint-interval", "0", "--threads", "1"]
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *what, *where, *recipe, *how],
        cwd=REPOSITORY,
        env=environment(OMP_NUM_THREADS="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _await_epoch(process: "subprocess.Popen[str]", folder: Path, epoch: int) -> int:
    """Wait until a run has reached an epoch and has a checkpoint; returns its epoch, -1 if it ended or timed out."""
    until = time.monotonic() + RUN_S
    while process.poll() is None and time.monotonic() < until:
        progress = read_json(RunFolder(folder).progress, Progress)
        if progress and progress.epoch >= epoch and any(RunFolder(folder).checkpoints.glob("*")):
            return progress.epoch
        time.sleep(0.01)
    return -1


def _folder(one: Combination, way: str, setting: Setting) -> Path:
    return Path(setting.work) / "runs" / f"{one.architecture}-{one.dataset}-{one.precision}-{way}"


def _history(folder: Path) -> History | None:
    result = read_json(RunFolder(folder).result, Result)
    return result.history if result else None
