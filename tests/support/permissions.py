"""Root's way past the permissions of files, given up for a while: a test meets what a user would."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

# From linux/capability.h; a set is three words (effective, permitted, inheritable), then the three of the upper half.
VERSION_3 = 0x20080522
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2


@contextmanager
def permissions_kept() -> Iterator[None]:
    """Hold this thread, and those it starts, to what files permit their owner, also as root."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, before = (ctypes.c_uint32 * 2)(VERSION_3, 0), (ctypes.c_uint32 * 6)()

    def call(function: str, capabilities: ctypes.Array[ctypes.c_uint32]) -> None:
        if getattr(libc, function)(header, capabilities):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), function)

    call("capget", before)
    without = type(before)(*before)
    without[0] &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
    call("capset", without)
    try:
        yield
    finally:
        call("capset", before)
