"""Whether code built for some GPUs runs on another: NVIDIA's rule, for those who ask with torch and without."""

import re
from collections.abc import Collection


def has_kernels(built_for: Collection[str], capability: str) -> bool:
    """Whether code built for these architectures ("sm_60", "sm_90a") runs on a GPU of a capability ("sm_70").

    Code for sm_XY runs on later minor versions of the same major one, code for sm_XYa on that one alone.
    """
    major, minor = _version(capability)
    built = [_version(arch) for arch in built_for if re.fullmatch(r"sm_\d+", arch)]
    return any(of == major and least <= minor for of, least in built) or f"{capability}a" in built_for


def _version(capability: str) -> tuple[int, int]:
    digits = capability.removeprefix("sm_")
    return int(digits[:-1]), int(digits[-1])
