"""What the run computes on: which device, in which number format and memory order, how many images at once.

All that differs from device to device is decided here, but for the recording of steps (`trainer.loop.step`).
"""

import logging
import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from trainer.loop import driver
from trainer.loop.environment import cpu_flags
from trainer.models.replicas import ReplicaBatchNorm2d
from trainer.records.kernels import AMD, has_kernels, torch_for
from trainer.records.recipe import Precision

log = logging.getLogger("trainer")

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
EVALUATION_BATCH = 500
# Fills a GPU with less memory than a step needs, and divides both validation sets: one shape to find algorithms for.
GPU_EVALUATION_BATCH = 2500
CACHED = 64  # images of a transformer whose activations a CPU's caches hold, more or less


class DeviceError(Exception):
    """The device asked for cannot be used; the message says what to do."""


class NodeError(DeviceError):
    """Here it cannot be used; on another node it may."""


def choose_device(name: str, *, rank: int = 0, processes: int = 1) -> torch.device:
    """Choose a GPU for "auto" where torch sees one, and one for each process of a run that has several.

    Raises DeviceError if it cannot compute there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else _without_gpu()
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device '{name}'; use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device '{name}' is not supported; use auto, cpu or cuda")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if processes > 1:
            if 0 < count < processes:
                wanted = f"the run has {processes} processes, each with a GPU of its own"
                raise DeviceError(f"{wanted}, and torch sees {count} GPUs here; ask for as many of both, or use one")
            device = torch.device("cuda", rank)
        if count <= (device.index or 0):
            found = f"torch {torch.__version__} sees {count} GPUs here, not '{name}'; use --device cpu"
            reason = driver.problem() if count == 0 and driver.is_loaded() else None
            raise NodeError(f"{found}, or mend this: {reason}" if reason else found)
        reason = driver.problem()  # the driver's list of GPUs, which torch counts, says nothing of its age
        if reason:
            raise NodeError(reason)
        _check_kernels(device)
    return device


def _without_gpu() -> str:
    """The CPU, where no GPU was meant. Raises NodeError where this process was given one that torch cannot use."""
    if driver.is_loaded() and driver.is_given():
        reason = driver.problem() or "torch sees none of them"
        gpus = os.environ["CUDA_VISIBLE_DEVICES"]
        raise NodeError(
            f"GPUs were given (CUDA_VISIBLE_DEVICES={gpus}), and: {reason}; to do without, use --device cpu"
        )
    if driver.is_loaded() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        log.warning("the GPU here is not used: %s", driver.problem() or "torch does not see it")
    return "cpu"


def _check_kernels(device: torch.device) -> None:
    """Refuse a GPU this torch has no kernels for, before "no kernel image is available" does."""
    built_for = [arch for arch in torch.cuda.get_arch_list() if arch.startswith(("sm_", AMD))]
    if torch.version.hip:  # ROCm, untried
        capability = torch.cuda.get_device_properties(device).gcnArchName.partition(":")[0]
    else:
        capability = "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    if not has_kernels(built_for, capability):
        raise NodeError(
            f"torch {torch.__version__} has no kernels for {torch.cuda.get_device_name(device)} ({capability}), "
            f"only for {', '.join(built_for)}; {torch_for(capability)}"
        )


def is_broken(name: str) -> bool:
    """Whether an error has left a GPU of no use to this process, as most of CUDA's do until the process ends."""
    if name == "cpu" or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize("cuda" if name == "auto" else name)
    except RuntimeError:
        return True
    return False


def resolve_precision(precision: Precision, device: torch.device) -> str:
    """The number format that "auto" means on a device: bf16 from sm_80, fp16 on sm_70, fp32 elsewhere.

    Raises DeviceError for bf16 where a GPU emulates it; is_bf16_supported() is not asked, which counts that.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        best = "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
        if precision == "bf16" and best != "bf16":
            name = torch.cuda.get_device_name(device)
            raise DeviceError(
                f"{name} has no bf16, and emulates it many times slower; use 'precision: auto' ({best} there) or fp32"
            )
        return best if precision == "auto" else precision
    if precision != "auto":
        return precision
    flags = cpu_flags()
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


def fix_arithmetic(precision: str) -> None:
    """Have cuDNN compute in the format asked for, and the same in every process of a run and whenever it goes on.

    Ampere and later would round the convolutions of fp32 to 10 bits; fp32 is the reference everywhere. No search by
    time, whose winner changes, and no convolution whose sums come in any order: ResNet-18's steps take 0 to 3 % longer
    in bf16 for that, 8 to 14 % in fp32 (H200, torch 2.11, n = 1), and it begins some seconds sooner.
    """
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which a forward pass runs. It uses a weight once, so keeping copies of them pays nothing."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision], cache_enabled=False)


def choose_memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """Channels last pays on a CPU and with reduced precision; fp32 on a V100 is slower that way."""
    pays = device.type == "cpu" or precision != "fp32"
    return torch.channels_last if pays else torch.contiguous_format


def images_at_once(model: nn.Module, batch: int, device: torch.device) -> tuple[int, int]:
    """Choose how many of a step's images are executed in one pass, and how many of an evaluation.

    The gradients of a step's passes add up to the same. Where there are batch statistics, a step is one pass, in
    groups. Without them a CPU has smaller ones, whose activations stay near (ViT, two cores of a 2023 Xeon, bf16, n = 1
    or 2: passes of 64 instead of 500 evaluate a fifth faster; they train within 4 % of passes of 128, at 64×64 pixels
    in fp32 with 0.6 GiB less; passes of 32 are a tenth slower).
    """
    if device.type != "cpu":
        return batch, GPU_EVALUATION_BATCH
    if any(isinstance(module, ReplicaBatchNorm2d) for module in model.modules()):
        return batch, EVALUATION_BATCH
    return min(batch, CACHED), CACHED


def gpu_names(device: torch.device, processes: int = 1) -> list[str]:
    """The names of the GPUs the run uses, one a process."""
    if device.type != "cuda":
        return []
    return [torch.cuda.get_device_name(index if processes > 1 else device) for index in range(processes)]
