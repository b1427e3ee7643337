"""Devices: the kinds of hardware that estimates and checks know by name, and how to describe another.

`KNOWN` is the table. Pure.
"""

import difflib
import math
import re
from typing import Annotated, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

# What the two networks sustain in fp32 of the vendor's peak, where it was not measured.
SUSTAINED = 2 / 5
# Half of that where the peak counts a second path that integers and addresses need as well (sm_86, sm_89, sm_120), or
# instructions that are issued in pairs (gfx942).
HALVED = ("sm_86", "sm_89", "sm_120", "gfx942")
# A slice of a GPU, or a slower GPU of the same name.
OTHER = re.compile(r"\d+g\.\d+gb|laptop|max-q")


class Device(BaseModel):
    """A kind of GPU, as a cluster file describes it: `device: {name: gh200, memory_gb: 96, tflops: 67}`.

    memory_gb: of one GPU, in GiB. tflops: the vendor's peak in fp32, without tensor cores. capability: "sm_90", or
    "gfx942" on AMD's. bf16: whether it computes in it. What is None is not known, and is not judged.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    memory_gb: Annotated[float, Field(strict=True, gt=0)]
    tflops: Annotated[float, Field(strict=True, gt=0)]
    capability: str | None = None
    bf16: Annotated[bool, Field(strict=True)] | None = None

    @field_validator("name")
    @classmethod
    def _is_a_word(cls, name: str) -> str:
        if not re.fullmatch(r"\w[\w .+-]*", name):
            raise ValueError("give a name such as 'gh200'")
        return name

    @field_validator("capability")
    @classmethod
    def _is_a_capability(cls, capability: str | None) -> str | None:
        if capability is not None and not re.fullmatch(r"sm_\d{2,3}|gfx[0-9a-f]{3,4}", capability):
            raise ValueError("write 9.0 as 'sm_90', and AMD's as 'gfx942'")
        return capability

    @property
    def is_gpu(self) -> bool:
        return True

    @property
    def is_amd(self) -> bool:
        return (self.capability or "").startswith("gfx")

    @property
    def is_own(self) -> bool:
        """Whether it is described in a cluster file, and not in the table."""
        return KNOWN.get(self.name) != self

    @property
    def sustained(self) -> float:
        """Operations a second in fp32 on the two networks."""
        return (SUSTAINED / 2 if self.capability in HALVED else SUSTAINED) * self.tflops * 1e12

    @property
    def emulates_bf16(self) -> bool:
        """Whether it is known to have no bf16."""
        return self._is_before(80) if self.bf16 is None else not self.bf16

    @property
    def auto_is_fp32(self) -> bool:
        """Whether `precision: auto` is fp32 there, for it has no faster format."""
        return self._is_before(70)

    @property
    def has_mps(self) -> bool:
        """Whether NVIDIA's multi-process service keeps processes apart there: from Volta on."""
        return not self.is_amd and not self._is_before(70)

    def _is_before(self, version: int) -> bool:
        number = (self.capability or "").removeprefix("sm_")
        return number.isdigit() and int(number) < version


class Core(Device):
    """A core of a CPU. Its rate is what it sustained; its memory is nothing that runs are held against."""

    @property
    def is_gpu(self) -> bool:
        return False

    @property
    def sustained(self) -> float:
        return self.tflops * 1e12

    @property
    def auto_is_fp32(self) -> bool:
        return True

    @property
    def has_mps(self) -> bool:
        return False


class Peak(NamedTuple):
    """TFLOP/s of dense matrices, fp32 without tensor cores; None for a format that a GPU does not have."""

    fp32: float
    tf32: float | None
    fp16: float | None
    bf16: float | None


class KnownGpu(Device):
    """A GPU of the table. memory_gb: the least that it comes with; largest_gb: the most.

    pattern: what Slurm (a gres, a feature) and the driver call it, in lower case. source: the vendor's document of the
    peak. measured: operations a second, in place of what the peak lets expect.
    """

    pattern: str
    largest_gb: float
    peak: Peak
    source: str
    measured: float | None = None

    @property
    def sustained(self) -> float:
        return super().sustained if self.measured is None else self.measured


# Of a Xeon of 2023, between ResNet-18's 130e9 and the ViT's 86e9 (benchmarks/results, n = 5).
CPU = Core(name="cpu", memory_gb=math.inf, tflops=0.105)

# The H200: that of the whole study, 17e12 to 24e12 by network and size (benchmarks/results, n = 1). The others are two
# fifths of a vendor's fp32 peak, rounded, by which sweeps were planned before there was this table.
MEASURED = {"p100": 3.7e12, "v100": 6.0e12, "a100": 7.8e12, "h100": 24e12, "h200": 23e12}

# Of a device's models the slowest has the peaks here. GiB are what the driver shows, ECC on where that is the rule. An
# MI250X is two devices to torch and to Slurm, each half of it.
# name, pattern, least and largest GiB, capability, peak in fp32, tf32, fp16, bf16, the vendor's document of the peaks
_TABLE: tuple[tuple[str, str, float, float, str, Peak, str], ...] = (
    ("p100", "p100l?", 12, 16, "sm_60", Peak(9.3, None, 18.7, None), "NVIDIA Tesla P100 data sheet, PCIe"),
    ("v100", "v100[ls]?", 16, 32, "sm_70", Peak(14, None, 112, None), "NVIDIA V100 data sheet, PCIe"),
    ("t4", "t4", 15, 15, "sm_75", Peak(8.1, None, 65, None), "NVIDIA T4 data sheet"),
    ("a30", "a30", 24, 24, "sm_80", Peak(10.3, 82, 165, 165), "NVIDIA A30 data sheet"),
    ("a40", "a40", 45, 45, "sm_86", Peak(37.4, 74.8, 149.7, 149.7), "NVIDIA A40 data sheet"),
    ("a100", "a100[lx]?", 40, 80, "sm_80", Peak(19.5, 156, 312, 312), "NVIDIA A100 data sheet"),
    ("l4", "l4", 22.5, 22.5, "sm_89", Peak(30.3, 60, 121, 121), "NVIDIA L4 data sheet"),
    ("l40s", "l40s", 45, 45, "sm_89", Peak(91.6, 183, 362, 362), "NVIDIA L40S data sheet"),
    ("rtx-3090", "(rtx[ _-]?)?3090", 24, 24, "sm_86", Peak(35.6, 35.6, 71, 71), "NVIDIA GA102 whitepaper"),
    ("rtx-4090", "(rtx[ _-]?)?4090", 24, 24, "sm_89", Peak(82.6, 82.6, 165, 165), "NVIDIA Ada GPU whitepaper"),
    ("rtx-a6000", "(rtx[ _-]?)?a6000", 48, 48, "sm_86", Peak(38.7, 77.4, 155, 155), "NVIDIA GA102 whitepaper"),
    ("rtx-6000-ada", "rtx[ _-]?6000[ _-]?ada", 48, 48, "sm_89", Peak(91.1, 182, 364, 364), "NVIDIA Ada GPU whitepaper"),
    ("h100", "h100", 80, 94, "sm_90", Peak(51, 378, 756, 756), "NVIDIA H100 data sheet, PCIe"),
    ("h200", "h200", 140, 140, "sm_90", Peak(60, 418, 836, 836), "NVIDIA H200 data sheet, NVL"),
    ("b200", "b200", 179, 179, "sm_100", Peak(80, 1100, 2250, 2250), "NVIDIA Blackwell technical brief, HGX B200"),
    ("mi210", "mi210", 64, 64, "gfx90a", Peak(22.6, None, 181, 181), "AMD Instinct MI210 data sheet"),
    ("mi250x", "mi250x?", 64, 64, "gfx90a", Peak(23.9, None, 191.5, 191.5), "AMD Instinct MI250X data sheet, halved"),
    ("mi300x", "mi300x", 192, 192, "gfx942", Peak(163.4, 653.7, 1307, 1307), "AMD Instinct MI300X data sheet"),
)

GPUS = {
    name: KnownGpu(
        name=name,
        memory_gb=least,
        tflops=peak.fp32,
        capability=capability,
        bf16=peak.bf16 is not None,
        pattern=pattern,
        largest_gb=largest,
        peak=peak,
        source=source,
        measured=MEASURED.get(name),
    )
    for name, pattern, least, largest, capability, peak, source in _TABLE
}
KNOWN: dict[str, Device] = {CPU.name: CPU, **GPUS}


def device_called(words: str) -> KnownGpu | None:
    """The GPU that Slurm or its driver calls so: "gpu:v100:1", "Tesla V100-SXM2-16GB", a feature "a100-80gb".

    None for what is not in the table, and for a slice of a GPU.
    """
    lower = words.lower()
    if OTHER.search(lower):
        return None
    return next((one for one in GPUS.values() if re.search(rf"(?<![a-z0-9])({one.pattern})(?![a-z0-9])", lower)), None)


def _named(given: object) -> object:
    """Take a name of the table in any case for its device. Raises ValueError for another name."""
    if isinstance(given, dict) and _plain(str(given.get("name"))) == "cpu":
        raise ValueError("the CPU needs no numbers; write 'device: cpu'")
    if isinstance(given, (dict, Device)):
        return given
    example = f"{{name: {given}, memory_gb: ..., tflops: ...}}"
    if not isinstance(given, str) or not given:
        raise ValueError("give a name such as 'v100', or '{name: ..., memory_gb: ..., tflops: ...}'")
    plain = {_plain(name): one for name, one in KNOWN.items()}
    if _plain(given) in plain:
        return plain[_plain(given)]
    close = difflib.get_close_matches(_plain(given), plain, n=1)
    nearest = f"did you mean '{plain[close[0]].name}'?" if close else f"known are {', '.join(KNOWN)}."
    raise ValueError(f"no device is known by that name; {nearest} Any other is written '{example}'")


def _plain(name: str) -> str:
    return re.sub(r"[ _-]", "", name.lower())


Named = Annotated[Device, BeforeValidator(_named)]
