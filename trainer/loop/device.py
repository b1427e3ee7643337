"""What the run computes on: the device, its number format, its threads; and saying so in the result."""

from contextlib import AbstractContextManager, nullcontext

import torch

from trainer.loop.environment import cpu_flags
from trainer.records.recipe import Precision

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class DeviceError(Exception):
    """The device asked for cannot be used; the message says what to do."""


def choose_device(name: str, *, rank: int = 0, processes: int = 1) -> torch.device:
    """Give the device: a GPU for "auto" where torch sees one, one for each process of a run that has several.

    Raises DeviceError if it cannot compute there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device '{name}'; use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device '{name}' is not supported; use auto, cpu or cuda")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if processes > 1:
            if count < processes:
                wanted = f"the run has {processes} processes, each with a GPU of its own"
                raise DeviceError(f"{wanted}, and torch sees {count} GPUs here; ask for as many of both, or use one")
            device = torch.device("cuda", rank)
        if count <= (device.index or 0):
            raise DeviceError(f"torch {torch.__version__} sees {count} GPUs here, not '{name}'; use --device cpu")
        _check_kernels(device)
    return device


def _check_kernels(device: torch.device) -> None:
    """Refuse a GPU this torch has no kernels for, before "no kernel image is available" does."""
    major, minor = torch.cuda.get_device_capability(device)
    built_for = [arch for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
    # Code for sm_XY runs on any later minor version of the same major one.
    if not any(arch[3:-1] == str(major) and arch[-1:].isdigit() and int(arch[-1]) <= minor for arch in built_for):
        raise DeviceError(
            f"torch {torch.__version__} has no kernels for {torch.cuda.get_device_name(device)} (sm_{major}{minor}), "
            f"only for {', '.join(built_for)}; install torch==2.7.1, the newest with sm_60 to sm_90"
        )


def is_broken(name: str) -> bool:
    """Tell whether an error has left a GPU of no use to this process, as most of CUDA's do until the process ends."""
    if name == "cpu" or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize("cuda" if name == "auto" else name)
    except RuntimeError:
        return True
    return False


def resolve_precision(precision: Precision, device: torch.device) -> str:
    """Give the number format that "auto" means on a device: bf16 from sm_80, fp16 on sm_70, fp32 elsewhere.

    is_bf16_supported() is not asked: it counts emulation.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    flags = cpu_flags()
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Give the context in which a forward pass runs. It uses a weight once, so keeping copies of them pays nothing."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision], cache_enabled=False)


def gpu_names(device: torch.device, processes: int = 1) -> list[str]:
    """Give the names of the GPUs the run uses, one a process."""
    if device.type != "cuda":
        return []
    return [torch.cuda.get_device_name(index if processes > 1 else device) for index in range(processes)]
