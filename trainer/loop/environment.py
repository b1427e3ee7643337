"""The processor, and the state of the code: what a result says of where it was computed."""

import platform
import subprocess
from pathlib import Path


def cpu_name() -> str:
    """The processor's name as the kernel prints it."""
    for line in _cpu_info():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """(commit, has uncommitted changes) of the checkout a folder is in, (None, None) outside of one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None, None
    return commit.strip(), bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def cpu_flags() -> set[str]:
    for line in _cpu_info():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()
