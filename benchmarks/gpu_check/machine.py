"""The machine, its GPU's peak rates, and the tests that need a GPU."""

import re
import subprocess
import sys

import torch

from benchmarks.gpu_check.setting import GIB, Answer, Setting
from benchmarks.launch import REPOSITORY, environment
from benchmarks.probe import look as look_at
from benchmarks.watch import least_seconds, matrix_peak
from trainer.loop.device import DeviceError, choose_device

COPIED_BYTES = 4 << 30
TESTS_S = 140.0
GPU_TESTS = "tests/on_gpu"


def look(setting: Setting, answer: Answer) -> None:
    """Describe the machine and measure its peak rates: TFLOP/s of matrix products, TB/s of a copy, read and written."""
    try:
        device = choose_device(setting.device)
    except DeviceError as error:
        sys.exit(f"{error}; 'make gpu-check REHEARSE=1' tries the check without a GPU")
    machine = look_at(setting.device)
    cuda = device.type == "cuda"
    answer("machine", machine.model_dump(mode="json"))
    cudnn = torch.backends.cudnn.version() if cuda else None  # type: ignore[no-untyped-call]  # torch's gap
    python = ".".join(map(str, sys.version_info[:3]))
    answer("versions", {"python": python, "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": cudnn})
    memory_gib = 0.0
    if cuda:
        torch.zeros(1, device=device)
        free, whole = torch.cuda.mem_get_info()
        properties = torch.cuda.get_device_properties(device)
        memory_gib = properties.total_memory / GIB
        gpu = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "kernels_for": torch.cuda.get_arch_list(),
            "memory_gib": round(memory_gib, 1),
            "context_gib": round((whole - free) / GIB, 2),
            "multiprocessors": properties.multi_processor_count,
            "state": _nvidia_smi("driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,compute_mode"),
        }
        answer("gpu", gpu)
    answer("setting", {"auto": machine.auto, "memory_gib": memory_gib})
    precisions = dict.fromkeys(("fp32", machine.auto, *(["fp16"] if cuda else [])))
    peaks = {name: matrix_peak(device, name) / 1e12 for name in precisions}
    source = torch.empty((1 << 20) if setting.rehearsal else COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    peaks["copy"] = 2 * len(source) / least_seconds(lambda: target.copy_(source), device) / 1e12
    answer("peaks", peaks)


def run_tests(setting: Setting, answer: Answer) -> None:
    """Run the tests that need a GPU; a rehearsal collects them."""
    options = ["-q", "-p", "no:cacheprovider", "-W", "default", *(["--collect-only"] if setting.rehearsal else ["-rA"])]
    command = [sys.executable, "-m", "pytest", GPU_TESTS, *options]
    found = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=TESTS_S)
    lines = [line.strip() for line in found.stdout.splitlines() if line.strip()]
    outcomes = [line for line in lines if re.match(r"(PASSED|FAILED|ERROR|SKIPPED)", line)]
    answer("outcomes", outcomes)
    answer("warnings", sorted({line for line in lines if "Warning" in line})[:12])
    answer("end", lines[-80:] if found.returncode else lines[-1:])
    if not outcomes:
        answer("missing", (lines or found.stderr.splitlines() or ["pytest said nothing"])[-1])


def _nvidia_smi(fields: str) -> dict[str, str]:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(zip(fields.split(","), (part.strip() for part in found.stdout.split(",")), strict=False))
