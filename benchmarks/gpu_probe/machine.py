"""The machine, its GPU's peak rates, and the tests that need a GPU."""

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import torch

from benchmarks.gpu_probe.setting import REPOSITORY, Answer, Setting
from trainer.loop.device import choose_device, resolve_precision
from trainer.loop.environment import cpu_name

PEAK_S = 0.5
MATRIX = 8192
COPIED_BYTES = 4 << 30
TESTS_S = 200.0


def look(setting: Setting, answer: Answer) -> None:
    """Describe the machine and measure its peak rates."""
    device = choose_device(setting.device)
    cuda = device.type == "cuda"
    machine = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,  # type: ignore[no-untyped-call]  # torch's gap
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "auto": resolve_precision("auto", device),
    }
    answer("machine", machine)
    if cuda:
        torch.zeros(1, device=device)
        free, whole = torch.cuda.mem_get_info()
        properties = torch.cuda.get_device_properties(device)
        gpu = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "context_gib": round((whole - free) / 2**30, 2),
            "multiprocessors": properties.multi_processor_count,
            "state": _nvidia_smi("driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,compute_mode"),
        }
        answer("gpu", gpu)
    answer("peaks", ceilings(device, tiny=setting.tiny))
    if cuda:
        answer("state_after", _nvidia_smi("clocks.sm,clocks.mem,temperature.gpu,power.draw"))


def ceilings(device: torch.device, *, tiny: bool) -> dict[str, float]:
    """Measure the peak rates of square matrix products (TFLOP/s) and of a copy (TB/s, read plus written)."""
    size = 256 if tiny else MATRIX
    found = {}
    formats = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for name, dtype in formats.items():
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        found[name] = 2 * size**3 / _seconds(lambda a=a, b=b: torch.mm(a, b), device) / 1e12  # type: ignore[misc]
    torch.backends.cuda.matmul.allow_tf32 = False
    source = torch.empty((1 << 20) if tiny else COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found["copy_tb_s"] = 2 * len(source) / _seconds(lambda: target.copy_(source), device) / 1e12
    return {name: round(value, 3) for name, value in found.items()}


def run_tests(setting: Setting, answer: Answer) -> None:
    folder, chosen = "tests/on_gpu", "captured_run or breaks_off"
    if setting.tiny:
        folder, chosen = "tests/trainer/loop/test_step.py", "draws_made_ahead"
    options = ["-q", "-p", "no:cacheprovider", "-W", "default", "-rA", "-k", chosen]
    command = [sys.executable, "-m", "pytest", folder, *options]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=TESTS_S)
    lines = found.stdout.splitlines()
    answer("code", found.returncode)
    answer("outcomes", [line for line in lines if re.match(r"(PASSED|FAILED|ERROR|SKIPPED)", line)])
    answer("warnings", sorted({line.strip() for line in lines if "Warning" in line})[:12])
    answer("end", lines[-80:] if found.returncode else lines[-1:])


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Measure the least seconds of the work among repetitions for PEAK_S, after an equally long warm-up."""
    best, began = float("inf"), time.perf_counter()
    while (elapsed := time.perf_counter() - began) < 2 * PEAK_S:
        _wait(device)
        before = time.perf_counter()
        work()
        _wait(device)
        if elapsed > PEAK_S:
            best = min(best, time.perf_counter() - before)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _nvidia_smi(fields: str) -> dict[str, str]:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(zip(fields.split(","), (part.strip() for part in found.stdout.split(",")), strict=False))
