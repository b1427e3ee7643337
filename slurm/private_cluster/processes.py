"""The processes of a private cluster: started, found by the SLURM_CONF in their environment, ended by pid."""

import contextlib
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmscriptd", "slurmd")
STEP = "slurmstepd"
POLL_S = 0.02
KILLED_S = 10.0  # for a process to be gone after SIGKILL
_children: list[subprocess.Popen[bytes]] = []  # kept until their end is noticed, so that no zombie stays


class StillAlive(Exception):
    """Processes that outlived SIGKILL: they hang in the kernel."""


def start(command: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path) -> int:
    """Start a process in a session of its own, its output added to a file; give its pid. Raises OSError."""
    with output.open("ab") as file:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    _children.append(child)
    return child.pid


def reap() -> None:
    """Take notice of the ends of those that this process started."""
    _children[:] = [child for child in _children if child.poll() is None]


def daemons(slurm_conf: str) -> list[psutil.Process]:
    """Find the daemons of a cluster."""
    return [process for process, _ in _with_environment(slurm_conf) if process.name() in DAEMONS]


def steps(slurm_conf: str, node: str | None = None) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Find the jobs' processes and the slurmstepd above them, on all nodes or on one.

    A job's process has the node's name in its environment, which a user's shell or salloc has not, or descends from a
    slurmstepd. The caller and those above it are none, even inside a job.
    """
    spared = {parent.pid for parent in psutil.Process().parents()} | {psutil.Process().pid}
    jobs: dict[int, psutil.Process] = {}
    above: dict[int, psutil.Process] = {}
    for process, environment in _with_environment(slurm_conf):
        if process.pid in spared:
            continue
        with contextlib.suppress(psutil.Error):
            if process.name() == STEP:
                family = process.children(recursive=True)
                if node is None or any(_node(child) == node for child in family):
                    above[process.pid] = process
                    jobs.update({child.pid: child for child in family if child.pid not in spared})
            elif "SLURMD_NODENAME" in environment and node in (None, environment["SLURMD_NODENAME"]):
                jobs[process.pid] = process
    return list(jobs.values()), list(above.values())


def end(processes: Iterable[psutil.Process], patience_s: float) -> list[psutil.Process]:
    """Ask processes to end, stopped ones too; kill those that have not after a while. Give those that had to be killed.

    Raises StillAlive.
    """
    asked = list(processes)
    for process in asked:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()
    left = _outlive(asked, patience_s)
    kill(left)
    return left


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes and wait until they are gone. Raises StillAlive."""
    asked = list(processes)
    for process in asked:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    left = _outlive(asked, KILLED_S)
    if left:
        raise StillAlive(f"killed, yet still there after {KILLED_S:.0f} s: pid {', '.join(str(p.pid) for p in left)}")


def _outlive(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for processes to end and give those that have not. A zombie has, also where nobody takes notice of it."""
    deadline = time.monotonic() + seconds
    left = list(filter(_lives, processes))
    while left and time.monotonic() < deadline:
        time.sleep(POLL_S)
        left = list(filter(_lives, left))
    reap()
    return left


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _with_environment(slurm_conf: str) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = _environment(process)
            if environment.get("SLURM_CONF") == slurm_conf and process.status() != psutil.STATUS_ZOMBIE:
                yield process, environment


def _environment(process: psutil.Process) -> dict[str, str]:
    """Read a process's environment. Raises OSError.

    slurmstepd and slurmscriptd write their title over it and leave the last variable only, after hundreds of empty ones
    (22.05); psutil's own reading stops at the first empty one.
    """
    words = Path(f"/proc/{process.pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(word.partition("=")[::2] for word in words)


def _node(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error, OSError):
        return _environment(process).get("SLURMD_NODENAME")
    return None
