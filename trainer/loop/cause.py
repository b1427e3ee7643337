"""Why a run failed, told by the exception that ended it."""

import torch

from trainer.loop.group import FellowError
from trainer.loop.trainer import DivergedError
from trainer.records.attempt import Cause

# "CUDA out of memory" has other words where a library, a launch or a recording meets it first.
GPU_FULL = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
# CUDA's words (cudaGetErrorString) for what a card, its driver or a stray write does. A failed assertion is not among
# them: it says that the data or the code is wrong, and would say so on any card.
GPU_FAULTS = (
    "an illegal memory access was encountered",
    "misaligned address",
    "an illegal instruction was encountered",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error detected",
    "hardware stack error",
    "hardware error",
    "CUDA-capable device(s) is/are busy or unavailable",
    "CUDA error: unknown error",
)


def cause_of(error: Exception) -> Cause:
    """Name the cause of a failure by its exception."""
    if isinstance(error, FellowError):
        return error.cause
    if isinstance(error, DivergedError):
        return Cause.DIVERGED
    words = str(error) if isinstance(error, RuntimeError) else ""
    if isinstance(error, torch.cuda.OutOfMemoryError) or any(full in words for full in GPU_FULL):
        return Cause.CUDA_OOM
    if any(fault in words for fault in GPU_FAULTS):
        return Cause.GPU_FAULT
    # A CPU allocation that fails is a plain RuntimeError; only its words tell.
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error):
        return Cause.HOST_OOM
    return Cause.EXCEPTION
