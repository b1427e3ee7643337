"""Start the processes of a private cluster, find them by their environment or folder, end them by pid."""

import contextlib
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmscriptd", "slurmd")
STEP = "slurmstepd"
POLL_S = 0.02
KILLED_S = 10.0  # for a process to disappear after SIGKILL
_children: list[subprocess.Popen[bytes]] = []  # kept until they have been waited for, so that no zombie stays


class StillAlive(Exception):
    """Processes survived SIGKILL: they hang in the kernel."""


def start(command: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path) -> int:
    """Start a process in its own session, its output appended to a file; returns its pid. Raises OSError."""
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
    """Wait for the ended children, so that none stays a zombie."""
    _children[:] = [child for child in _children if child.poll() is None]


def daemons(slurm_conf: str) -> list[psutil.Process]:
    """Find the daemons of a cluster."""
    return [process for process, _ in _with_environment(slurm_conf) if process.name() in DAEMONS]


def steps(slurm_conf: str, node: str | None = None) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Find the jobs' processes, and the slurmstepds above them, on all nodes or on one.

    A job's process descends from a slurmstepd, or has the node's name in its environment, which a user's shell or
    salloc does not. The caller and its ancestors are excluded, even inside a job.
    """
    excluded = {parent.pid for parent in psutil.Process().parents()} | {psutil.Process().pid}
    jobs: dict[int, psutil.Process] = {}
    above: dict[int, psutil.Process] = {}
    for process, environment in _with_environment(slurm_conf):
        if process.pid in excluded:
            continue
        with contextlib.suppress(psutil.Error):
            if process.name() == STEP:
                family = process.children(recursive=True)
                if node is None or any(_node(child) == node for child in family):
                    above[process.pid] = process
                    jobs.update({child.pid: child for child in family if child.pid not in excluded})
            elif "SLURMD_NODENAME" in environment and node in (None, environment["SLURMD_NODENAME"]):
                jobs[process.pid] = process
    return list(jobs.values()), list(above.values())


def end(processes: Iterable[psutil.Process], patience_s: float) -> list[psutil.Process]:
    """Terminate processes, suspended ones too; kill and return those that have not ended after patience_s.

    Raises StillAlive.
    """
    targets = list(processes)
    for process in targets:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()
    left = _outlive(targets, patience_s)
    kill(left)
    return left


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes and wait until they are gone. Raises StillAlive."""
    targets = list(processes)
    for process in targets:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    left = _outlive(targets, KILLED_S)
    if left:
        raise StillAlive(f"killed, yet still there after {KILLED_S:.0f} s: pid {', '.join(str(p.pid) for p in left)}")


def _outlive(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for processes to end and return those that have not. A zombie has ended, even if nobody waits for it."""
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
    folder = str(Path(slurm_conf).parent.parent)  # where its daemons were started
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = _environment(process)
            its = environment.get("SLURM_CONF") == slurm_conf or (process.name() == STEP and process.cwd() == folder)
            if its and process.status() != psutil.STATUS_ZOMBIE:
                yield process, environment


def _environment(process: psutil.Process) -> dict[str, str]:
    """Read a process's environment. Raises OSError.

    slurmstepd and slurmscriptd overwrite it with their title and leave only the last variable, after hundreds of empty
    ones (22.05), or none (slurmstepd of 24.11); psutil stops reading at the first empty one.
    """
    words = Path(f"/proc/{process.pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(word.partition("=")[::2] for word in words)


def _node(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error, OSError):
        return _environment(process).get("SLURMD_NODENAME")
    return None
