"""`python -m benchmarks.gpu_probe --out FOLDER`: all parts in turn, one JSON file that grows, a page at the end."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu_probe.page import page
from benchmarks.gpu_probe.setting import REPOSITORY, Answer, Setting, answering, environment
from trainer.records.files import write_atomic

POLL_S = 0.1
GRACE_S = 8.0  # to end the last part and write the page


class Part(NamedTuple):
    """A function of this package that measures something, and its time limit in seconds."""

    module: str
    function: str
    patience_s: float


PARTS = {
    "machine": Part("machine", "look", 120),
    "drawn": Part("drawing", "draw_small", 120),
    "drawn-large": Part("drawing", "draw_large", 200),
    "tests": Part("machine", "run_tests", 150),
    "end-to-end": Part("end_to_end", "run_all", 150),
    "repeats": Part("repeats", "repeat_all", 150),
    "memory": Part("memory", "hold_all", 100),
    "curves": Part("curves", "draw_curves", 100),
    "bad-label": Part("faults", "bad_label", 90),
    "inside": Part("inside", "look_inside", 100),
    "out-of-memory": Part("faults", "out_of_memory", 60),
    "ours": Part("speeds", "measure_ours", 200),
    "peer": Part("speeds", "measure_peer", 250),
    "shared": Part("speeds", "measure_shared", 150),
    "variants": Part("inside", "try_variants", 90),
}
# Parts of a stage run concurrently; the large sets are drawn in the background until a part needs them.
STAGES = (
    ("machine", "drawn"),
    ("tests", "end-to-end", "memory", "repeats", "curves", "bad-label"),
    ("inside",),
    ("variants",),
    ("out-of-memory",),
    ("ours",),
    ("shared",),
    ("peer",),
)
BESIDE = "drawn-large"
NEEDS_LARGE = {"out-of-memory", "ours", "peer", "shared"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Always returns 0; the answers tell which parts failed."""
    call = _parser().parse_args(arguments)
    setting = Setting(
        device=call.device, work=str(call.work.absolute()), tiny=call.tiny, cores=len(os.sched_getaffinity(0))
    )
    if call.part:
        return _answer_part(call.part, setting, call.answer)
    call.out.mkdir(parents=True, exist_ok=True)
    call.work.mkdir(parents=True, exist_ok=True)
    _probe(setting, call.out.absolute(), call.parts or list(PARTS), time.monotonic() + call.deadline)
    return 0


def _answer_part(name: str, setting: Setting, file: Path) -> int:
    function: Callable[[Setting, Answer], None] = getattr(
        import_module(f"benchmarks.gpu_probe.{PARTS[name].module}"), PARTS[name].function
    )
    with answering(file) as answer:
        function(setting, answer)
    return 0


def _probe(setting: Setting, out: Path, chosen: Sequence[str], until: float) -> None:
    answers: dict[str, Any] = {}
    running: dict[str, Running] = {}

    def note(name: str) -> None:
        answers[name] = running.pop(name).end()
        write_atomic(out / "answers.json", json.dumps(answers, indent=1).encode())
        problem = answers[name].get("problem", "")
        print(f"{name}: {answers[name]['seconds']} s {problem}", file=sys.stderr, flush=True)

    def see_through(names: Sequence[str]) -> None:
        while any(name in running for name in names):
            for name in list(running):
                if running[name].ended(until - GRACE_S):
                    note(name)
            time.sleep(POLL_S)

    for stage in STAGES:
        names = [name for name in stage if name in chosen]
        if "machine" not in stage and NEEDS_LARGE.intersection(names):
            see_through([BESIDE])
        for name in names:
            if time.monotonic() < until - GRACE_S:
                running[name] = Running(name, setting, out)
        if stage == STAGES[0] and BESIDE in chosen:
            running[BESIDE] = Running(BESIDE, setting, out)
        see_through(names)
    see_through([BESIDE])
    _pack_logs(Path(setting.work), out)
    write_atomic(out / "page.md", page(answers).encode())
    print(page(answers), flush=True)


class Running:
    """A running part, in a process group of its own."""

    def __init__(self, name: str, setting: Setting, out: Path) -> None:
        self.part = PARTS[name]
        self.began = time.monotonic()
        self.given_up = False
        self.file = Path(setting.work) / f"answer-{name}.json"
        self.log = Path(setting.work) / f"log-{name}.txt"
        self.file.unlink(missing_ok=True)
        call = ["--out", str(out), "--part", name, "--answer", str(self.file), "--work", setting.work]
        call += ["--device", setting.device, *(["--tiny"] if setting.tiny else [])]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu_probe", *call],
                cwd=REPOSITORY,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ended(self, until: float) -> bool:
        """Tell whether the part has ended or is given up, at its own time limit or `until`."""
        if self.process.poll() is not None:
            return True
        self.given_up = time.monotonic() > min(self.began + self.part.patience_s, until)
        return self.given_up

    def end(self) -> dict[str, Any]:
        """Kill what is left of the part and return its answers."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        answers: dict[str, Any] = {"seconds": round(time.monotonic() - self.began, 1)}
        if self.file.exists():
            answers["found"] = json.loads(self.file.read_text())
        if self.given_up:
            answers["problem"] = f"given up after {answers['seconds']} s"
        elif self.process.returncode:
            answers["problem"] = self.log.read_text(errors="replace")[-1500:]
        return answers


def _pack_logs(work: Path, out: Path) -> None:
    """Pack the output of parts and trainers."""
    with tarfile.open(out / "logs.tar.gz", "w:gz") as archive:
        for pattern in ("log-*.txt", "answers-*/*.log", "runs/*/logs/*.log", "runs/*/error.json", "faults/*/*/*.json"):
            for path in sorted(work.glob(pattern)):
                archive.add(path, str(path.relative_to(work)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_probe", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="answers.json, page.md, logs.tar.gz")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="only these")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to see that the program runs")
    parser.add_argument("--tiny", action="store_true", help="as little of everything as will run")
    parser.add_argument("--deadline", type=float, default=480, metavar="SECONDS", help="for all of it")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "data" / "gpu-probe", metavar="DIR")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
