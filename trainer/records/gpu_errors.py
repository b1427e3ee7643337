"""The words of CUDA and the libraries on it for a GPU that is full, and for one that is broken."""

import re

# "CUDA out of memory" has other words where a library, the driver, a launch or a recording meets it first: "CUDA error:
# out of memory", CUDA_ERROR_OUT_OF_MEMORY, CUDNN_STATUS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED, cuDNN 9's
# CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, NCCL's "Cuda failure 2 'out of memory'".
FULL = re.compile(
    r"cuda.*out.of.memory|_status_alloc_failed|_device_allocation_failed|cuda\.outofmemoryerror", re.IGNORECASE
)
# cudaGetErrorString's for what a card, its driver or a stray write does. A failed assertion is not among them: it says
# that the data or the code is wrong, and would say so on any card.
BROKEN = re.compile(
    r"cuda.*(?:an illegal memory access was encountered|misaligned address|an illegal instruction was encountered"
    r"|unspecified launch failure|the launch timed out and was terminated|uncorrectable ECC error"
    r"|uncorrectable NVLink error|hardware stack error|hardware error|is/are busy or unavailable|error: unknown error)",
    re.IGNORECASE,
)
