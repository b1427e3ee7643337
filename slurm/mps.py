"""NVIDIA's multi-process service for one job: the kernels of several trainers on a GPU side by side, not in turn.

Owns the daemon it starts and no other: pipes and logs are in a folder made for it, by which it is addressed.
`python -m slurm.mps` is a client that uses a GPU for a moment: a daemon that has started may serve nobody.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.records.code import module_command, own_snapshot

NO_SERVER = range(805, 811)  # CUDA_ERROR_MPS_CONNECTION_FAILED and its kin, in cuda.h
CONTROL = "nvidia-cuda-mps-control"
ANSWER_S = 10  # from a daemon on the same node; a job that is told to end has little more
CLIENT_S = 60  # the first starts a server, which takes hold of every GPU
IN_TURN = "no multi-process service, the runs share the GPU in turn"
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
            print(f"{IN_TURN}: {problem}", flush=True)
            yield dict(os.environ)
            return
        try:
            client = {**environment, **_devices_of_a_client()}
            problem = _try_out(folder, environment, client)
            if problem:
                print(f"{IN_TURN}: {problem}", flush=True)
            yield dict(os.environ) if problem else client
        finally:
            problem, _ = _call([CONTROL], folder, environment, said="quit\n")
            if problem:
                print(f"the multi-process service was told to quit, and did not: {problem}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, environment: dict[str, str]) -> str | None:
    """Start the daemon. Gives what went wrong, None if nothing did."""
    if shutil.which(CONTROL) is None:
        return f"no {CONTROL} on PATH"
    problem, _ = _call(["sh", "-c", DEAF, "sh", CONTROL, "-d"], folder, environment)
    return problem


def _try_out(folder: Path, environment: dict[str, str], client: dict[str, str]) -> str | None:
    """Have a client use the GPU, and see that it did so through the daemon. Gives what went wrong."""
    command = ["sh", "-c", DEAF, "sh", *module_command("slurm.mps", own_snapshot())]
    try:
        done = subprocess.run(command, env=client, capture_output=True, text=True, errors="replace", timeout=CLIENT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"a client was not served: {error}"
    if done.returncode:
        return f"a client was not served: {(done.stdout + done.stderr).strip().rpartition(chr(10))[2]}"
    problem, servers = _call([CONTROL], folder, environment, said="get_server_list\n")
    return problem or (None if servers.strip() else "a client used the GPU without it")


def _call(command: list[str], folder: Path, environment: dict[str, str], *, said: str = "") -> tuple[str | None, str]:
    """Run the control program. Gives what went wrong, and its answer.

    The answer is in a file: a daemon that it leaves behind would hold a pipe open.
    """
    answer = folder / "answer"
    try:
        with answer.open("w+") as file:
            found = subprocess.run(
                command, input=said, text=True, stdout=file, stderr=file, env=environment, timeout=ANSWER_S
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error), ""
    words = answer.read_text(errors="replace")
    if found.returncode == 0:
        return None, words
    return words.split("\n")[0].strip() or f"{CONTROL} ended with exit code {found.returncode}", words


def _devices_of_a_client() -> dict[str, str]:
    """Number the job's GPUs as the daemon's clients see them: from 0, whichever of the node's the daemon was given."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if not all(device.strip().isdigit() for device in devices):
        return {}  # all of them, or named by UUID, which means the same to both
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(devices))))}


def _use_a_gpu() -> str | None:
    """Take hold of the first GPU, as a trainer would, by the driver alone. Gives what went wrong."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return str(error)
    device, context = ctypes.c_int(), ctypes.c_void_p()
    for call, *arguments in (
        (cuda.cuInit, 0),
        (cuda.cuDeviceGet, ctypes.byref(device), 0),
        (cuda.cuDevicePrimaryCtxRetain, ctypes.byref(context), device),
    ):
        code = call(*arguments)
        if code:
            return f"CUDA error {code}" + (" (the daemon's server cannot be reached)" if code in NO_SERVER else "")
    return None


if __name__ == "__main__":
    sys.exit(_use_a_gpu())
