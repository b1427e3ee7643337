"""The check on a GPU, rehearsed on the CPU: its verdicts, its page, and that what is measured survives its end."""

import json
import os
import signal
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import psutil
import pytest
from conftest import REPOSITORY, Command, wait_for

from benchmarks.gpu_check.page import PHASES, page
from benchmarks.gpu_check.verdicts import judge
from benchmarks.records import Sample, Shape, Side

SAME = {"code": 0, "not_recorded": False, "equal": True, "equal_epochs": 12, "attempts": [[0, 12]]}
RESUMED = SAME | {"attempts": [[0, 5], [4, 12]]}
DONE, FULL = {"state": "done"}, {"state": "failed", "cause": "cuda_oom"}
LOSSES = [2.0, 1.5, 1.2]
GIB = {
    "begun": [0.1] * 4,
    "trial": [0.1] * 4,
    "steps as written": [0.2] * 4,
    "replays": [0.3] * 4,
    "evaluation": [0.4] * 4,
}


def bundle(*runs: dict[str, str], expected: str = "cuda_oom") -> dict[str, Any]:
    """Make what became of a bundle."""
    return {"one": {"runs": dict(enumerate(runs)), "expected": expected}}


def curves(apart: float) -> dict[str, Any]:
    """Make a card's curve, where the CPU's are 0.01 apart."""
    return {"cpu fp32": curve(0), "cpu fp32, other threads": curve(0.01), "card fp32": curve(apart)}


def curve(apart: float) -> dict[str, list[float]]:
    """Make losses that are so far from LOSSES."""
    return {"train_loss": [loss + apart for loss in LOSSES], "val_loss": LOSSES}


def memory(whole_gib: float) -> dict[str, Any]:
    """Make a card's memory, where 3.0 GiB are expected."""
    return {phase: [0.1] * 4 for phase in PHASES} | {"whole_gib": whole_gib, "expected_gib": 3.0}


def sample(architecture: str, seconds: float) -> dict[str, Any]:
    """Make a speed on an H100: 20,480 images trained and validated in so many seconds each."""
    measured = {
        "precision": "bf16",
        "trained": 20480,
        "validated": 20480,
        "startup_s": 4.0,
        "first_epoch_s": 5.0,
        "train_seconds": [seconds] * 3,
        "validation_seconds": [seconds / 4] * 3,
        "began": 0.0,
        "ended": 9.0,
        "matrix_peak": 7e14,
        "memory_bytes": 2**30,
        "device_memory_bytes": 2**30,
        "train_loss": 1.0,
        "val_accuracy": 0.5,
        "gpu": "NVIDIA H100 80GB HBM3",
        "versions": {"torch": "2.7.1"},
    }
    shape, side = Shape(architecture=architecture, dataset="cifar10"), Side(program="ours", precision="bf16")
    whole = {"shape": shape.model_dump(), "side": side.model_dump(), "round": 0, "measurement": measured}
    return Sample.model_validate(whole).model_dump(mode="json")


@pytest.mark.parametrize(
    ("part", "found", "verdict", "why"),
    [
        ("smoke", {"vit": {"recorded": SAME, "killed": RESUMED}}, "ok", ""),
        ("smoke", {"vit": {"eager": SAME | {"equal": False, "equal_epochs": 2}}}, "differs", "history, from epoch 2"),
        ("smoke", {"vit": {"killed": SAME}}, "differs", "not resumed"),
        ("smoke", {"vit": {"recorded": SAME | {"not_recorded": True}}}, "differs", "could not be recorded"),
        ("smoke", {"vit": {"eager": SAME, "killed": {"problem": "a\nlast"}}}, "failed", "vit killed: last"),
        ("memory", {"vit cifar10 bf16": memory(3.4)}, "ok", ""),
        ("memory", {"vit cifar10 bf16": memory(3.5)}, "differs", "3.5 GiB, not 3.0"),
        ("out-of-memory", bundle(DONE, FULL, DONE), "ok", ""),
        ("out-of-memory", bundle(DONE, FULL, FULL), "differs", "one: done, failed cuda_oom, failed cuda_oom"),
        ("bad-label", bundle(DONE, FULL, DONE, expected="exception"), "differs", "cuda_oom"),
        ("curves", curves(0.02), "ok", ""),
        ("curves", curves(0.04), "differs", "card fp32: 0.0400"),
        ("profile", {"vit": {"recorded": False}}, "differs", "vit"),
        ("speeds", {"samples": [sample("resnet18", 0.1), sample("vit", 0.2)]}, "ok", ""),
        ("speeds", {"samples": [sample("resnet18", 0.1), sample("vit", 0.9)]}, "differs", "not 2 to 2.4 h"),
        ("tests", {"outcomes": ["FAILED test_a"]}, "differs", "test_a"),
        ("tests", {"outcomes": ["SKIPPED"], "missing": "no GPU"}, "not measured", "no GPU"),
    ],
)
def test_a_part_is_judged_by_what_was_expected(part: str, found: dict[str, Any], verdict: str, why: str) -> None:
    """Each by its own measure, the difference in words."""
    answer = judge(part, {"found": found})
    assert answer.verdict == verdict
    assert why in answer.why
    assert bool(answer.why) == (verdict != "ok")


def test_a_part_that_was_ended_is_not_ok() -> None:
    """What it answered until then counts; one that broke has failed."""
    assert judge("smoke", {"found": {"vit": {"recorded": SAME}}, "ended": "ended after 9 s"}).verdict == "not measured"
    assert judge("smoke", {"problem": "Traceback\nRuntimeError: no"}) == ("failed", "RuntimeError: no")


def test_the_page_shows_what_a_card_answers() -> None:
    """Memory beside what was expected, kernels and their gaps, shares, hours, a verdict for each part."""
    step = {"recorded": True, "eager_ms": 12.0, "step_ms": 10.0, "evaluation_ms": 9.0, "validated": 2560}
    step |= {
        "traffic_gb": 16.0,
        "kernels": 468.0,
        "copies": 3.0,
        "kernel_ms": 9.5,
        "longest": [["void k<1>()", 6, 1.7]],
    }
    machine = {"cpu": "A CPU", "cores": 16, "memory_bytes": 2**30, "gpu": "NVIDIA H100", "auto": "bf16"}
    together = {"images_per_second": 80.0, "memory_gib": 4.0}
    found = {
        "machine": {"machine": machine | {"commit": None, "dirty": None}, "peaks": {"bf16": 700.0, "copy": 3.2}},
        "smoke": {"vit cifar10 bf16": {"recorded": SAME, "killed": RESUMED}},
        "memory": {"vit cifar10 bf16": memory(3.5)},
        "profile": {"vit cifar10 bf16": step},
        "shared": {"vit 1 in turn": {**together, "images_per_second": 40.0}, "vit 2 service": together},
        "curves": {"cpu fp32": curve(0), "card bf16": curve(0.02)},
        "out-of-memory": {"one": {"runs": {"before": DONE, "large": FULL}}},
        "speeds": {"samples": [sample("resnet18", 0.1), sample("vit", 0.2)]},
    }
    parts = {name: {"verdict": "ok", "why": "", "seconds": 9.0, "found": one} for name, one in found.items()}
    words = page({"date": "2026-01-02", "rehearsal": False, "parts": parts | {"tests": judge("tests", {})._asdict()}})
    for row in (
        "| vit cifar10 bf16 | killed | 0–5 + 4–12 | yes | 0.0e+00 | 0.0 |",
        f"| vit cifar10 bf16 | {'0.10 / 0.10 | ' * len(PHASES)}3.5 | 3.0 |",
        "| vit cifar10 bf16 | 468 | 12.00 | 10.00 | 9.50 | 0.50 | 9.00 | 16.00 | 1.60 | 50 % |",
        "| `k<1>()` | 6 | 1.700 |",
        "| vit 2 service | 80 | 2.00 | 4.00 |",
        "| card bf16 | +0.0200 | +0.0200 | +0.0200 |",
        "| one | large | failed | cuda_oom |  |",
        "| speeds | ok |  | 9 |",
    ):
        assert row in words.splitlines()
    assert "| ours | bf16 | 2." in words.split("## The whole sweep")[1]


@pytest.fixture
def check(tmp_path: Path) -> Iterator[Command]:
    """`python -m benchmarks.gpu_check`, its files in the test's folder."""
    command = Command("benchmarks.gpu_check", tmp_path, {"PYTHONPATH": str(REPOSITORY)})
    yield command
    command.end()


REHEARSED = ("--rehearse", "--out", "out", "--work", "work", "--parts")


def verdicts(folder: Path) -> dict[str, str]:
    """Read the verdicts so far, empty before the first."""
    file = folder / "out" / "gpu-check.json"
    if not file.exists():
        return {}
    return {name: part["verdict"] for name, part in json.loads(file.read_text())["parts"].items()}


@pytest.mark.slow
def test_the_check_is_rehearsed_on_a_cpu(check: Command) -> None:
    """Whole runs resumed to the same history, a full card that ends its own run alone, all of it on a page."""
    words = check(*REHEARSED, "smoke", "out-of-memory").stdout
    assert verdicts(check.folder) == dict.fromkeys(("machine", "smoke", "out-of-memory"), "ok")
    assert (check.folder / "out" / "gpu-check.md").read_text() + "\n" == words
    assert "| out-of-memory | failed | host_oom |" in words


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_check_that_is_cut_off_leaves_what_it_measured(check: Command, number: signal.Signals) -> None:
    """On disk as JSON and as a page, and no process goes on."""
    process = check.start(*REHEARSED, "smoke", "curves")
    wait_for(lambda: verdicts(check.folder).get("machine") == "ok", "the first part")
    others: list[psutil.Process] = []

    def training() -> bool:
        others[:] = psutil.Process(process.pid).children(recursive=True)
        return any("trainer" in other.cmdline() for other in others)

    wait_for(training, "a trainer")
    process.send_signal(number)
    assert process.wait(15) == (128 + number if number == signal.SIGTERM else -number)
    assert verdicts(check.folder) == {"machine": "ok", "smoke": "not measured", "curves": "not measured"}
    assert "| machine | ok |" in (check.folder / "out" / "gpu-check.md").read_text()
    wait_for(lambda: not any(other.is_running() for other in others), "the end of its processes", 15)


@pytest.mark.slow
def test_a_package_that_is_missing_comes_from_a_wheel(tmp_path: Path) -> None:
    """Without it a sentence says which and how; its wheel, unpacked, serves the check and its parts."""
    packages, wheels, bare = Path(pytest.__file__).parent.parent, tmp_path / "wheels", tmp_path / "bare"
    venv.create(tmp_path / "venv")
    wheels.mkdir()
    bare.mkdir()
    with ZipFile(wheels / "pydantic.whl", "w") as wheel:
        for entry in packages.iterdir():
            if not entry.name.startswith("pydantic"):
                (bare / entry.name).symlink_to(entry)
            for file in entry.rglob("*") if entry.name.startswith("pydantic") else ():
                wheel.write(file, file.relative_to(packages))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(bare)))}

    def check(*more: str) -> "subprocess.CompletedProcess[str]":
        call = [
            str(tmp_path / "venv" / "bin" / "python"),
            "-m",
            "benchmarks.gpu_check",
            "--rehearse",
            "--parts",
            "machine",
            *more,
        ]
        call += ["--out", "out", "--work", "work"]
        return subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)

    without = check()
    assert (without.returncode, without.stderr.count("\n")) == (2, 1)
    assert "lacks pydantic>=2.7" in without.stderr
    assert "make gpu-check WHEELS=wheels" in without.stderr
    served = check("--wheels", "wheels")
    assert served.returncode == 0, served.stderr
    assert verdicts(tmp_path) == {"machine": "ok"}
