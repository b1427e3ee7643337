"""The devices that are known by name, and those that a cluster file describes."""

from typing import Any

import pytest
from conftest import REPOSITORY
from pydantic import ValidationError

from slurm.devices import CPU, GPUS, KNOWN, Device, KnownGpu, device_called
from slurm.pools import Pool

GH200: dict[str, Any] = {"name": "gh200", "memory_gb": 96, "tflops": 67}

BEFORE = {  # operations a second, least GiB, capability: what plans were made by before there was a table
    "p100": (3.7e12, 12.0, "sm_60"),
    "v100": (6.0e12, 16.0, "sm_70"),
    "a100": (7.8e12, 40.0, "sm_80"),
    "h100": (24e12, 80.0, "sm_90"),
    "h200": (23e12, 140.0, "sm_90"),
}


def test_the_first_devices_keep_their_numbers() -> None:
    """A plan of then is a plan of now."""
    assert {name: (one.sustained, one.memory_gb, one.capability) for name, one in GPUS.items() if name in BEFORE} == (
        BEFORE
    )
    assert CPU.sustained == 105e9
    assert [name for name, one in KNOWN.items() if one.emulates_bf16] == ["p100", "v100", "t4"]
    assert [name for name, one in KNOWN.items() if one.auto_is_fp32] == ["cpu", "p100"]
    without_mps = [name for name, one in KNOWN.items() if not one.has_mps]
    assert without_mps == ["cpu", "p100", "mi210", "mi250x", "mi300x"]


@pytest.mark.parametrize("gpu", GPUS.values(), ids=list(GPUS))
def test_a_device_of_the_table_is_whole(gpu: KnownGpu) -> None:
    """Its numbers agree with each other, its own name finds it and no other, and the documents have it."""
    assert 0 < gpu.memory_gb <= gpu.largest_gb
    assert gpu.tflops == gpu.peak.fp32 <= max(filter(None, gpu.peak))
    assert gpu.bf16 == (gpu.peak.bf16 is not None)
    assert 0.2 <= gpu.sustained / (gpu.tflops * 1e12) <= 0.48
    assert gpu.source.startswith("AMD" if gpu.is_amd else "NVIDIA")
    assert device_called(gpu.name) is gpu
    sizes = f"{gpu.memory_gb:g}" + (f"–{gpu.largest_gb:g}" if gpu.largest_gb > gpu.memory_gb else "")
    formats = " · ".join(f"{rate:g}" if rate else "–" for rate in gpu.peak)
    row = f"| `{gpu.name}` | {sizes} | {gpu.capability} | {formats} | {gpu.sustained / 1e12:.1f} | {gpu.source} |"
    assert row in (REPOSITORY / "docs" / "sweep-file.md").read_text(), row


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Tesla P100-PCIE-12GB", "p100"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("Tesla V100S-PCIE-32GB", "v100"),
        ("gpu:v100l:4", "v100"),
        ("v100-32gb", "v100"),
        ("NVIDIA A100-PCIE-40GB", "a100"),
        ("gpu:nvidia_h100_80gb_hbm3:2", "h100"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090"),
        ("geforce_rtx_4090", "rtx-4090"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("AMD Instinct MI250X / MI250", "mi250x"),
        ("Quadro RTX 6000", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA GB200", None),
        ("NVIDIA L40", None),
        ("NVIDIA A40-8Q", "a40"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("gpu:a100_3g.20gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("gpu", None),
    ],
)
def test_what_slurm_and_drivers_call_a_gpu_names_its_device(words: str, name: str | None) -> None:
    """Not one whose name merely holds another's, nor a slice."""
    found = device_called(words)
    assert (found.name if found else None) == name


@pytest.mark.parametrize("name", ["h200", "H200", "rtx-6000-ada", "RTX 6000 Ada", "rtx_6000_ada"])
def test_a_device_is_named_in_any_case(name: str) -> None:
    assert Pool.model_validate({"device": name}).device in (GPUS["h200"], GPUS["rtx-6000-ada"])


def test_a_device_of_ones_own_says_what_it_has() -> None:
    """Its memory is what the pool's GPUs have, unless the pool says so itself; what it leaves out is not judged."""
    pool = Pool.model_validate({"device": GH200, "mps": True})
    assert pool.device == Device(**GH200)
    assert pool.device.is_own
    assert (pool.gpu_memory_gb, pool.device.sustained) == (96, pytest.approx(26.8e12))
    assert (pool.device.emulates_bf16, pool.device.auto_is_fp32) == (False, False)
    assert Pool.model_validate({"device": GH200, "gpu_memory_gb": 90}).gpu_memory_gb == 90
    assert Pool.model_validate({"device": "h200"}).gpu_memory_gb is None
    old = Device(**{**GH200, "name": "titan-rtx", "capability": "sm_75"})
    assert (old.emulates_bf16, old.auto_is_fp32, old.has_mps) == (True, False, True)
    assert not Device(**{**GH200, "capability": "sm_90"}).emulates_bf16
    assert Device(**{**GH200, "capability": "sm_90", "bf16": False}).emulates_bf16
    assert Device(**{**GH200, "capability": "sm_86"}).sustained == pytest.approx(13.4e12)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("a10", "did you mean 'a100'? Any other is written '{name: a10, memory_gb: ..., tflops: ...}'"),
        ("quantum", "known are cpu, p100, v100, t4"),
        (5, "give a name such as 'v100', or '{name: ..., memory_gb: ..., tflops: ...}'"),
        ({**GH200, "name": "CPU"}, "the CPU needs no numbers; write 'device: cpu'"),
        ({**GH200, "name": "-"}, "give a name such as 'gh200'"),
        ({**GH200, "capability": "9.0"}, "write 9.0 as 'sm_90'"),
        ({**GH200, "memory_gb": 0}, "greater than 0"),
    ],
)
def test_a_device_that_cannot_be_is_refused(device: object, words: str) -> None:
    """With the nearest name, and how to describe it."""
    with pytest.raises(ValidationError) as refused:
        Pool.model_validate({"device": device})
    assert words in str(refused.value)
