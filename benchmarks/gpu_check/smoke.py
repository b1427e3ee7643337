"""Whole runs of `python -m trainer`: with steps recorded, with steps as written, and killed and resumed.

Several runs share the GPU: the question is whether they agree, not how fast they are.
"""

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu_check.setting import SEED, Answer, Combination, Found, Setting, combinations
from benchmarks.launch import environment
from trainer.records.checkpoint_file import list_checkpoints
from trainer.records.files import RecordError, read_json
from trainer.records.result import METRICS, History, Result
from trainer.records.run import RunFolder
from trainer.records.status import Progress

RECORDED, EAGER, KILLED = WAYS = ("recorded", "eager", "killed")
RATIO = 0.4  # of the images: two steps an epoch
RUN_S = 100.0
RUN_GIB = 7.0  # the ViT's in fp32
SELDOM = "600"  # seconds between checkpoints: none
NOT_RECORDED = "could not be recorded"


def run_all(setting: Setting, answer: Answer) -> None:
    """Train every combination in every way, and compare the histories with that of the recorded one."""
    found: dict[Combination, Found] = {}

    def execute(work: tuple[Combination, str]) -> None:
        one, way = work
        ways = found.setdefault(one, {})
        try:
            ways[way] = _execute(one, way, setting)
        except (subprocess.TimeoutExpired, RecordError, OSError) as error:
            ways[way] = {"problem": f"{type(error).__name__}: {error}"}
        histories = {name: _history(_folder(one, name, setting)) for name in WAYS if name in ways}
        reference = histories.get(RECORDED)
        answer(str(one), {name: ways[name] | compare(reference, history) for name, history in histories.items()})

    work = [(one, way) for one in combinations(setting) for way in WAYS]
    with ThreadPoolExecutor(setting.at_once(8, RUN_GIB)) as pool:
        list(pool.map(execute, work))


def compare(reference: History | None, history: History | None) -> Found:
    """Compare two histories: whether they are equal bit for bit, in how many epochs, and how far losses are apart."""
    if reference is None or history is None:
        return {"equal": None}
    mine, theirs = ([getattr(one, name) for name in METRICS] for one in (reference, history))
    epochs = list(zip(zip(*mine, strict=True), zip(*theirs, strict=True), strict=False))
    return {
        "equal": mine == theirs,
        "equal_epochs": next((number for number, (a, b) in enumerate(epochs) if a != b), len(epochs)),
        "apart": max((abs(a[0] - b[0]) for a, b in epochs), default=0.0),
    }


def _execute(one: Combination, way: str, setting: Setting) -> Found:
    folder = _folder(one, way, setting)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier check
    began = time.monotonic()
    process = _start(one, way, folder, setting, "0" if way == KILLED else SELDOM)
    found: Found = {}
    try:
        if way == KILLED:
            found["killed_in_epoch"] = _await_epoch(process, folder, setting.epochs // 3)
            process.kill()
            process.communicate()
            process = _start(one, way, folder, setting, SELDOM)
        _, stderr = process.communicate(timeout=RUN_S)
    finally:
        process.kill()
    logs = "".join(path.read_text(errors="replace") for path in sorted(RunFolder(folder).logs.glob("*.log")))
    found |= {"code": process.returncode, "not_recorded": NOT_RECORDED in logs}
    found["said"] = [line for line in logs.splitlines() if " WARNING " in line or " ERROR " in line][:8]
    if process.returncode:
        found["problem"] = stderr[-1500:]
    result = read_json(RunFolder(folder).result, Result) if process.returncode == 0 else None
    if result:
        found |= {
            "precision": result.hardware.precision,
            "attempts": [[one.start_epoch, one.end_epoch] for one in result.attempts],
            "total_s": result.timing.total_seconds,
            "wall_s": round(time.monotonic() - began, 2),
            "train_loss": result.history.train_loss[-1],
        }
    return found


def _start(one: Combination, way: str, folder: Path, setting: Setting, interval: str) -> "subprocess.Popen[str]":
    what = ["--architecture", one.architecture, "--dataset", one.dataset, "--ratio", str(RATIO), "--seed", str(SEED)]
    where = ["--data", str(setting.data()), "--output", str(folder), "--device", setting.device]
    recipe = ["--epochs", str(setting.epochs), "--batch-size", str(setting.batch), "--precision", one.precision]
    how = ["--checkpoint-interval", interval, "--threads", "1"]
    module = ["benchmarks.gpu_check.altered", "eager"] if way == EAGER else ["trainer"]
    return subprocess.Popen(
        [sys.executable, "-m", *module, *what, *where, *recipe, *how],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _await_epoch(process: "subprocess.Popen[str]", folder: Path, epoch: int) -> int:
    """Wait until a run has reached an epoch and has a checkpoint; returns its epoch, -1 if it ended or timed out."""
    until = time.monotonic() + RUN_S
    while process.poll() is None and time.monotonic() < until:
        progress = read_json(RunFolder(folder).progress, Progress)
        if progress and progress.epoch >= epoch and list_checkpoints(RunFolder(folder).checkpoints):
            return progress.epoch
        time.sleep(0.01)
    return -1


def _folder(one: Combination, way: str, setting: Setting) -> Path:
    return Path(setting.work) / "runs" / f"{one.architecture}-{one.dataset}-{one.precision}-{way}"


def _history(folder: Path) -> History | None:
    result = read_json(RunFolder(folder).result, Result)
    return result.history if result else None
