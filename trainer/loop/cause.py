"""Why a run failed, told by the exception that ended it."""

import re

import torch

from trainer.loop.device import NodeError
from trainer.loop.group import FellowError
from trainer.loop.trainer import DivergedError
from trainer.records.attempt import Cause
from trainer.records.gpu_errors import BROKEN, FULL
from trainer.stop import CutOff

# A CPU allocation that fails is a plain RuntimeError; only its words tell.
HOST_FULL = re.compile(r"DefaultCPUAllocator: can't allocate memory|_HOST_ALLOCATION_FAILED")


def cause_of(error: Exception) -> Cause:
    """Name the cause of a failure by its exception."""
    if isinstance(error, FellowError):
        return error.cause
    if isinstance(error, DivergedError):
        return Cause.DIVERGED
    if isinstance(error, NodeError):
        return Cause.GPU_FAULT
    if isinstance(error, CutOff):  # by what connects GPUs, where there are any
        return Cause.GPU_FAULT if torch.cuda.is_initialized() else Cause.EXCEPTION
    words = str(error) if isinstance(error, RuntimeError) else ""
    if isinstance(error, torch.cuda.OutOfMemoryError) or FULL.search(words):
        return Cause.CUDA_OOM
    if BROKEN.search(words):
        return Cause.GPU_FAULT
    if isinstance(error, MemoryError) or HOST_FULL.search(words):
        return Cause.HOST_OOM
    return Cause.EXCEPTION
