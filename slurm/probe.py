"""`python -m slurm.probe --folder DIR --data DIR --nonce N`, on a compute node: tell in one JSON line what is there.

`sweep doctor` runs it through srun, with the Python that the jobs will use. It never fails: what it cannot do is part
of what it tells. Standard library only, torch when it gets there.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

OWN_BYTES = 2**30  # a context takes up to 0.6 GiB
HEALTH = ("index", "ecc.errors.uncorrected.volatile.total", "retired_pages.pending", "remapped_rows.pending")
SMI_S = 30


class Gpu(NamedTuple):
    """A GPU as torch sees it. capability: "sm_70", or "gfx90a" on AMD's."""

    name: str
    capability: str


class Findings(NamedTuple):
    """What a node has. problems: by what was tried ("writable", "torch", "gpus"), why it could not be done.

    folder: the doctor's mark was seen there, so it is the same folder and not one of the same name. archs: what torch
    has kernels for ("sm_60"); torch: its version, None if it cannot be imported. troubles: what GPUs that can be used
    have all the same.
    """

    nonce: str
    node: str
    host: str
    folder: bool
    writable: bool
    data: bool
    free_bytes: int | None
    python: str
    torch: str | None
    archs: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    problems: dict[str, str]
    troubles: tuple[str, ...] = ()


def mark(folder: Path, nonce: str) -> Path:
    """The file that the doctor leaves in a folder for its probes to find."""
    return folder / f".sweep-doctor-{nonce}"


def examine(folder: Path, data: Path, nonce: str) -> Findings:
    """Look around on this machine."""
    problems: dict[str, str] = {}
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    torch_version, archs, gpus = _look_at_torch(problems)
    return Findings(
        nonce=nonce,
        node=node,
        host=socket.gethostname(),
        folder=_exists(mark(folder, nonce), "folder", problems),
        writable=_can_write(mark(folder, f"{nonce}-{node}"), problems),
        data=_exists(data, "data", problems),
        free_bytes=_free_bytes(folder, problems),
        python=platform.python_version(),
        torch=torch_version,
        archs=archs,
        gpus=gpus,
        problems=problems,
        troubles=gpu_troubles() if gpus and "gpus" not in problems else (),
    )


def read_findings(output: str, nonce: str) -> Findings | None:
    """Find the probe's line among what else was printed, by setup lines for instance; None if it is missing."""
    for line in reversed(output.splitlines()):
        try:
            document: dict[str, Any] = json.loads(line)
            if document["nonce"] == nonce:
                gpus = tuple(Gpu(**gpu) for gpu in document.pop("gpus"))
                lists = {name: tuple(document[name]) for name in ("archs", "troubles")}
                return Findings(**{**document, **lists, "gpus": gpus})
        except (ValueError, TypeError, KeyError):
            continue
    return None


def _look_at_torch(problems: dict[str, str]) -> tuple[str | None, tuple[str, ...], tuple[Gpu, ...]]:
    """Import torch: its version, the GPU architectures it was built for, and the GPUs it sees."""
    try:
        import torch
    except Exception as error:  # anything at all may go wrong in a half-broken installation, and all of it is news
        problems["torch"] = _words(error)
        return None, (), ()
    archs: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            archs = torch_archs(torch)
            gpus = tuple(_describe(torch, index) for index in range(torch.cuda.device_count()))
            for index in range(len(gpus)):  # a GPU may be there and broken, taken by another, or too old for torch
                (torch.ones(1, device=f"cuda:{index}") + 1).item()
            if not gpus and torch.version.cuda and not torch.cuda.is_available() and caught:
                problems["gpus"] = str(caught[-1].message)
    except Exception as error:
        problems["gpus"] = _words(error)
    return str(torch.__version__), archs, gpus


def torch_archs(torch: Any) -> tuple[str, ...]:
    """The architectures torch has kernels for; unlike torch.cuda.get_arch_list() also where there is no GPU."""
    flags = getattr(torch._C, "_cuda_getArchFlags", lambda: None)()  # missing in a build without CUDA
    return tuple((flags or "").split())


def _describe(torch: Any, index: int) -> Gpu:
    if torch.version.hip:
        capability = torch.cuda.get_device_properties(index).gcnArchName.partition(":")[0]
    else:
        capability = "sm_{}{}".format(*torch.cuda.get_device_capability(index))
    return Gpu(str(torch.cuda.get_device_name(index)), capability)


def gpu_troubles() -> tuple[str, ...]:
    """Ask torch whether others use this job's GPUs, and nvidia-smi whether their memory is failing."""
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        if total - free > OWN_BYTES:
            gib = f"{(total - free) / 2**30:.1f} of {total / 2**30:.1f} GiB"
            found.append(f"another process uses GPU {index} ({gib} of its memory)")
    for line in _ask_nvidia_smi():
        gpu, errors, *pending = [value.strip() for value in line.split(",")]
        if errors.isdigit() and int(errors):
            found.append(f"GPU {gpu} has had {errors} uncorrectable memory errors since it was started")
        if any(value in ("Yes", "1") for value in pending):
            found.append(f"GPU {gpu} waits for a restart to leave out failing memory")
    return tuple(found)


def _ask_nvidia_smi() -> list[str]:
    """Its lines on this process's GPUs; an older one knows no remapped rows, and refuses the whole question."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    among = [f"--id={visible}"] if visible else []
    for fields in (HEALTH, HEALTH[:-1]):
        command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", *among]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=SMI_S)
        except (OSError, subprocess.TimeoutExpired):
            return []
        if answer.returncode == 0:
            return answer.stdout.splitlines()
    return []


def _exists(path: Path, what: str, problems: dict[str, str]) -> bool:
    try:
        path.stat()
    except OSError as error:
        problems[what] = _words(error)
        return False
    return True


def _can_write(path: Path, problems: dict[str, str]) -> bool:
    try:
        path.write_bytes(b"\n")
        path.unlink()
    except OSError as error:
        problems["writable"] = _words(error)
        return False
    return True


def _free_bytes(folder: Path, problems: dict[str, str]) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        problems["free"] = _words(error)
        return None


def _words(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the findings."""
    parser = argparse.ArgumentParser(prog="python -m slurm.probe", description="Tell what this machine has for runs.")
    parser.add_argument("--folder", type=Path, required=True, help="where the runs write")
    parser.add_argument("--data", type=Path, required=True, help="where the prepared datasets are")
    parser.add_argument("--nonce", required=True, help="the end of the name of the mark in --folder")
    given = parser.parse_args(arguments)
    found = examine(given.folder, given.data, given.nonce)
    print(json.dumps({**found._asdict(), "gpus": [gpu._asdict() for gpu in found.gpus]}), flush=True)


if __name__ == "__main__":
    main()
