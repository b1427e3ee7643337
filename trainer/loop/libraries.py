"""What the libraries below torch are told before they are loaded: how threads wait, and what becomes of freed memory.

Measured on two cores of a 2023 Xeon in bf16, torch 2.7.1, ResNet-18 and the ViT:

Threads spin at a barrier before they sleep. For as long as OpenMP lets them, and a step waits for whoever else has one
of their cores; not at all, and each of its hundreds of barriers costs a wake-up. Images trained and validated a second,
OpenMP's own / SPINS / none: alone ResNet-18 2,560 to 3,010 / 2,180 to 2,940 / 1,470 (n = 3, 3, 1), the ViT 426 / 423 /
306 (n = 1); with one core kept busy by another process ResNet-18 272 / 711 / 673 (n = 1). So OpenMP decides where cores
are the process's own, and SPINS where anyone may come.

A step frees and asks for the same gigabyte again. glibc gives such pieces back to the system, which clears them page by
page for the next step: a tenth of training and a third of validation (n = 3).
"""

import ctypes
import os
from contextlib import suppress

SPINS = "30000"

# From glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4


def settle_libraries(*, own_cores: bool) -> None:
    """Tell the libraries, for this process's life and its children's. To be called before torch is imported.

    own_cores: no other process uses the cores of this one.
    """
    if not own_cores and "OMP_WAIT_POLICY" not in os.environ:  # which is the user's own choice
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for large pages
    with suppress(OSError, AttributeError):  # another C library, which has its own ways
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, -1)  # keep what is freed at the end of the heap
        libc.mallopt(_MMAP_MAX, 0)  # and have nothing elsewhere
