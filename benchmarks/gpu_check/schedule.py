"""When each part runs: a process each, some at once; what is measured is on disk after each.

`python -m benchmarks.gpu_check.schedule PART SETTING ANSWER` runs one.
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu_check.page import page
from benchmarks.gpu_check.setting import Found, Setting, answering
from benchmarks.gpu_check.verdicts import Verdict, judge
from benchmarks.launch import environment
from trainer.records.files import write_atomic

POLL_S = 0.1
END_S = 2.0  # for a part to end what it started
ROOMY_GIB = 70.0  # of a card, which holds all parts of a stage at once
GRACE_S = 8.0  # before the deadline, to end the last parts and write the page


class Part(NamedTuple):
    """A function of this package, and its time limit in seconds. Parts of a stage run at once.

    needs: the drawing that it waits for.
    """

    function: str
    stage: int
    patience_s: float
    needs: str = "few-images"


# The most valuable first. What is timed, or needs the card's whole memory, has it to itself.
PARTS = {
    "machine": Part("machine.look", 0, 120, ""),
    "smoke": Part("smoke.run_all", 1, 150),
    "memory": Part("memory.hold_all", 1, 120),
    "bad-label": Part("faults.bad_label", 1, 90),
    "curves": Part("curves.draw_curves", 1, 120),
    "tests": Part("machine.run_tests", 1, 150, ""),
    "speeds": Part("speeds.measure", 2, 200, "many-images"),
    "out-of-memory": Part("faults.out_of_memory", 3, 60),
    "profile": Part("inside.look_inside", 4, 90),
    "shared": Part("speeds.measure_shared", 5, 120, "many-images"),
    "other-speeds": Part("speeds.measure_others", 6, 200, "many-images"),
}
DRAWINGS = {
    "few-images": Part("speeds.draw_some", 0, 120, ""),
    "many-images": Part("speeds.draw_many", 1, 200, ""),
}


def check(setting: Setting, out: Path, chosen: Sequence[str], deadline_s: float) -> int:
    """Run the chosen parts, the machine's in any case. Returns the exit code."""
    out.mkdir(parents=True, exist_ok=True)
    Path(setting.work).mkdir(parents=True, exist_ok=True)
    return _Check(setting, out, chosen, time.monotonic() + deadline_s - GRACE_S).run()


class _Check:
    """The parts under way and what they have answered. until: when the last is ended."""

    def __init__(self, setting: Setting, out: Path, chosen: Sequence[str], until: float) -> None:
        self.setting = setting
        self.out = out
        self.until = until
        self.cut_off = False
        self.running: dict[str, Running] = {}
        self.chosen = [name for name in PARTS if name == "machine" or name in chosen]
        self.record: Found = {
            "date": datetime.now(timezone.utc).date().isoformat(),
            "rehearsal": setting.rehearsal,
            "parts": {name: {"verdict": "not measured", "why": "not reached"} for name in self.chosen},
        }

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end_early)
        chosen = {name: PARTS[name] for name in self.chosen}
        needed = {part.needs for part in chosen.values()}
        every = {name: part for name, part in DRAWINGS.items() if name in needed} | chosen
        for stage in sorted({part.stage for part in every.values()}):
            names = [name for name, part in every.items() if part.stage == stage]
            self._see_through({every[name].needs for name in names})
            if stage and self.record["parts"]["machine"]["verdict"] != "ok":
                self.until = 0.0
            small = 0 < self.setting.memory_gib < ROOMY_GIB
            for name in names:
                if time.monotonic() < self.until:
                    self.running[name] = Running(name, every[name], self.setting)
                if small and name not in DRAWINGS:
                    self._see_through({name})
            self._see_through(set(names) - {"many-images"})
        self._see_through(set(DRAWINGS))
        _pack_logs(Path(self.setting.work), self.out)
        print(self._write(), flush=True)
        if self.cut_off:
            return 128 + signal.SIGTERM
        fine = ("ok", "not measured") if self.setting.rehearsal else ("ok",)  # a CPU has no kernels, memory, service
        return int(any(answer["verdict"] not in fine for answer in self.record["parts"].values()))

    def _end_early(self, *_: object) -> None:
        self.until, self.cut_off = 0.0, True

    def _see_through(self, names: set[str]) -> None:
        """Wait until these parts have ended, and take down the answers of any that ends meanwhile."""
        while names & self.running.keys():
            for name in list(self.running):
                if self.running[name].ended(self.until):
                    self._note(name)
            time.sleep(POLL_S)

    def _note(self, name: str) -> None:
        answer = self.running.pop(name).end()
        found = answer.get("found", {})
        self.setting = replace(self.setting, **found.get("setting", {}))
        verdict = _judge(name, answer)
        if name in PARTS:
            self.record["parts"][name] = {**verdict._asdict(), **answer}
        print(f"{name}: {answer['seconds']} s, {': '.join(filter(None, verdict))}", file=sys.stderr, flush=True)
        self._write()

    def _write(self) -> str:
        write_atomic(self.out / "gpu-check.json", json.dumps(self.record, indent=1).encode())
        words = page(self.record)
        write_atomic(self.out / "gpu-check.md", words.encode())
        return words


def _judge(name: str, answer: Found) -> Verdict:
    """Judge a part; an answer that is not as it should be must not cost those of the others."""
    try:
        return judge(name, answer)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return Verdict("failed", f"not as it should be: {error!r}")


class Running:
    """A running part, in a process group of its own, which ends with this process: it reads a pipe from it."""

    def __init__(self, name: str, part: Part, setting: Setting) -> None:
        self.began = time.monotonic()
        self.patience_s = part.patience_s
        self.given_up_s = 0.0
        self.file = Path(setting.work) / f"answer-{name}.json"
        self.log = Path(setting.work) / f"log-{name}.txt"
        self.file.unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, part.function, setting.to_json(), str(self.file)],
                env=environment(OMP_NUM_THREADS="1"),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ended(self, until: float) -> bool:
        """Tell whether the part has ended; tell it to, at its own time limit or `until`."""
        now = time.monotonic()
        if not self.given_up_s and now > min(self.began + self.patience_s, until) and self.process.poll() is None:
            self.given_up_s = now
            self.process.terminate()
        return self.process.poll() is not None or 0 < self.given_up_s < now - END_S

    def end(self) -> Found:
        """Kill what is left of the part and return its answers."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        answer: Found = {"seconds": round(time.monotonic() - self.began, 1)}
        if self.file.exists():
            answer["found"] = json.loads(self.file.read_text())
        if self.given_up_s:
            answer["ended"] = f"ended after {answer['seconds']:.0f} s"
        elif self.process.returncode:
            answer["problem"] = self.log.read_text(errors="replace")[-1500:] or f"exit {self.process.returncode}"
        return answer


def _pack_logs(work: Path, out: Path) -> None:
    """Pack the output of parts and trainers."""
    with tarfile.open(out / "gpu-check-logs.tar.gz", "w:gz") as archive:
        for pattern in ("log-*.txt", "answers-*/*.log", "runs/*/logs/*.log", "runs/*/error.json", "faults/*/*/*.json"):
            for path in sorted(work.glob(pattern)):
                archive.add(path, str(path.relative_to(work)))


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)


def _run_part(function: str, setting: str, file: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that `finally` ends a service
    module, _, name = function.partition(".")
    with answering(Path(file)) as answer:
        getattr(import_module(f"benchmarks.gpu_check.{module}"), name)(Setting.from_json(setting), answer)


if __name__ == "__main__":
    _run_part(*sys.argv[1:])
