"""Whether code built for some GPUs runs on another, by the vendor's rule, and what torch to install where it does not.

For those who ask with torch and without.
"""

import re
from collections.abc import Collection

AMD = "gfx"


def has_kernels(built_for: Collection[str], capability: str) -> bool:
    """Whether code built for these architectures ("sm_60", "sm_90a") runs on a GPU of a capability ("sm_70").

    Code for sm_XY runs on later minor versions of the same major one, code for sm_XYa on that one alone; so does code
    for AMD's ("gfx90a", "gfx90a:sramecc+").
    """
    if capability.startswith(AMD):
        return capability in {arch.partition(":")[0] for arch in built_for}
    major, minor = _version(capability)
    built = [_version(arch) for arch in built_for if re.fullmatch(r"sm_\d+", arch)]
    return any(of == major and least <= minor for of, least in built) or f"{capability}a" in built_for


def torch_for(capability: str) -> str:
    """Say what to install for a GPU of a capability ("sm_60") that a torch has no kernels for."""
    if capability.startswith(AMD):
        return "install a build of torch for ROCm that has them"
    major, _ = _version(capability)
    if major >= 10:  # Blackwell and what comes after it
        return "install a build of torch 2.7 or later for CUDA 12.8 or later, the first with kernels for it"
    if major >= 5:
        return "install 'torch==2.7.1' for CUDA 12.6, which has sm_50 to sm_90"
    return "it is too old for every torch that this program runs with: use another GPU"


def _version(capability: str) -> tuple[int, int]:
    digits = capability.removeprefix("sm_")
    return int(digits[:-1]), int(digits[-1])
