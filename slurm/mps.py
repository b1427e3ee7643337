"""NVIDIA's multi-process service for one job: the kernels of several trainers on a GPU side by side, not in turn.

Owns the daemon it starts and no other: pipes and logs are in a folder made for it, by which it is addressed.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
ANSWER_S = 10  # from a daemon on the same node; a job that is told to end has little more
# Slurm tells every process of a job to end, and the daemon must outlive the trainers, which still save.
DEAF = 'trap "" USR2 TERM INT; exec "$@"'


@contextmanager
def multi_process_service() -> Iterator[dict[str, str]]:
    """Run a daemon for the length of the block; give the environment that makes processes its clients.

    Where one is offered already, by CUDA_MPS_PIPE_DIRECTORY, that is left to be used. Where none can be had, the
    environment is this process's, and a sentence says so: the trainers then share the GPU in turn.
    """
    if "CUDA_MPS_PIPE_DIRECTORY" in os.environ:
        yield dict(os.environ)
        return
    folder = Path(tempfile.mkdtemp(prefix="sweep-mps-"))
    environment = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    try:
        problem = _start(folder, environment)
        if problem:
            print(f"no multi-process service, the runs share the GPU in turn: {problem}", flush=True)
            yield dict(os.environ)
            return
        try:
            yield {**environment, **_devices_of_a_client()}
        finally:
            problem = _call([CONTROL], folder, environment, said="quit\n")
            if problem:
                print(f"the multi-process service was told to quit, and did not: {problem}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, environment: dict[str, str]) -> str | None:
    """Start the daemon. Gives what went wrong, None if nothing did."""
    if shutil.which(CONTROL) is None:
        return f"no {CONTROL} on PATH"
    return _call(["sh", "-c", DEAF, "sh", CONTROL, "-d"], folder, environment)


def _call(command: list[str], folder: Path, environment: dict[str, str], *, said: str = "") -> str | None:
    """Run the control program, its answer in a file: a daemon that it leaves behind would hold a pipe open."""
    answer = folder / "answer"
    try:
        with answer.open("w+") as file:
            found = subprocess.run(
                command, input=said, text=True, stdout=file, stderr=file, env=environment, timeout=ANSWER_S
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if found.returncode == 0:
        return None
    words = answer.read_text(errors="replace").split("\n")[0].strip()
    return words or f"{CONTROL} ended with exit code {found.returncode}"


def _devices_of_a_client() -> dict[str, str]:
    """Number the job's GPUs as the daemon's clients see them: from 0, whichever of the node's the daemon was given."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if not all(device.strip().isdigit() for device in devices):
        return {}  # all of them, or named by UUID, which means the same to both
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(devices))))}
