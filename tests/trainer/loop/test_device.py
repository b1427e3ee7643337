"""The device a run is given is the one it asked for, or a sentence says why not and what to do."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainer.loop import driver
from trainer.loop.device import DeviceError, NodeError, choose_device, resolve_precision
from trainer.records.kernels import torch_for

LOADED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82.01  Wed Oct 27 21:21:55 UTC 2021\n"
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL\nAlternatively, go to: https://pytorch.org"
)
CUDA_12 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Have torch find a card, or none; its driver is loaded, and may be too old."""

    def find(
        count: int = 1, capability: tuple[int, int] = (7, 0), *, problem: str | None = None, cuda: str | None = "12.6"
    ) -> None:
        def init() -> None:
            if problem:
                raise RuntimeError(problem)

        loaded = tmp_path / "version"
        loaded.write_text(LOADED)
        monkeypatch.setattr(driver, "DRIVER", loaded)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        answers = {
            "is_available": lambda: count > 0 and not problem,
            "device_count": lambda: count,
            "init": init,
            "get_device_capability": lambda device=None: capability,
            "get_device_name": lambda device=None: "Tesla",
            "get_arch_list": lambda: [*CUDA_12, "compute_90"],
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return find


def test_a_card_that_computes_is_taken(card: Any) -> None:
    card()
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:0") == torch.device("cuda", 0)


@pytest.mark.parametrize("count", [0, 1])
def test_a_driver_too_old_is_named_with_the_one_needed(card: Any, count: int) -> None:
    """Also where the driver lists a GPU that torch counts."""
    card(count, problem=TOO_OLD)
    with pytest.raises(NodeError) as refused:
        choose_device("cuda")
    assert "driver here, 470.82.01, knows CUDA 11.4" in str(refused.value)
    assert "wants 12.6: have driver 525.60.13 or later installed, or use another node" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_gpus_that_were_given_are_not_exchanged_for_the_cpu(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that computes on the CPU of a GPU's node takes days, and nobody notices."""
    card(0, problem=TOO_OLD)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1234")
    with pytest.raises(NodeError, match=r"CUDA_VISIBLE_DEVICES=GPU-1234.*470\.82\.01.*--device cpu$"):
        choose_device("auto")
    assert choose_device("cpu").type == "cpu"


def test_a_torch_without_cuda_is_named(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    card(0, cuda=None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(NodeError, match="was built without CUDA"):
        choose_device("auto")


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_hidden_gpus_are_left_alone(
    card: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hidden: str
) -> None:
    card(0, problem="No CUDA GPUs are available")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert choose_device("auto").type == "cpu"
    assert not caplog.records


def test_a_laptop_whose_gpu_is_of_no_use_says_so(card: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody asked for the GPU: the run goes on, on the CPU."""
    card(0, problem=TOO_OLD)
    assert choose_device("auto").type == "cpu"
    [said] = caplog.records
    assert "the GPU here is not used: the NVIDIA driver here, 470.82.01," in said.getMessage()


def test_a_machine_without_a_driver_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    if driver.is_loaded():
        pytest.fail("this test wants a machine without NVIDIA's driver")
    assert choose_device("auto").type == "cpu"
    assert not caplog.records


@pytest.mark.parametrize(
    ("capability", "advice"),
    [((12, 0), "CUDA 12.8 or later"), ((10, 0), "CUDA 12.8 or later"), ((3, 7), "too old for every torch")],
)
def test_a_card_without_kernels_is_told_which_torch_has_them(
    card: Any, capability: tuple[int, int], advice: str
) -> None:
    card(1, capability)
    with pytest.raises(NodeError, match=advice):
        choose_device("auto")


def test_a_p100_is_told_of_the_torch_that_has_its_kernels(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer builds leave Pascal and Volta out."""
    card(1, (6, 0))
    assert choose_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90", "sm_100"])
    with pytest.raises(NodeError, match=r"\(sm_60\), only for sm_75, .*'torch==2\.7\.1' for CUDA 12\.6"):
        choose_device("auto")
    assert torch_for("sm_60") == torch_for("sm_70")


def test_a_card_of_amd_s_is_taken_where_torch_has_its_kernels(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """ROCm's torch answers as CUDA's does, but for the version and the names of its kernels. Of a stand-in, untried."""
    card(1, (9, 0), cuda=None)
    monkeypatch.setattr(torch.version, "hip", "6.2")
    found = SimpleNamespace(gcnArchName="gfx90a:sramecc+:xnack-")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: found)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["gfx90a", "gfx942"])
    assert choose_device("cuda").type == "cuda"
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["gfx942"])
    with pytest.raises(NodeError, match=r"\(gfx90a\), only for gfx942; install a build of torch for ROCm"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("capability", "formats"),
    [
        ((6, 0), {"auto": "fp32", "fp32": "fp32", "fp16": "fp16", "bf16": None}),
        ((7, 0), {"auto": "fp16", "fp32": "fp32", "fp16": "fp16", "bf16": None}),
        ((8, 0), {"auto": "bf16", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}),
        ((9, 0), {"auto": "bf16", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}),
    ],
)
def test_bf16_is_refused_where_it_is_emulated(
    card: Any, capability: tuple[int, int], formats: dict[Any, str | None]
) -> None:
    """Ten times slower, and nothing would say so."""
    card(1, capability)
    device = choose_device("cuda")
    for asked, found in formats.items():
        if found:
            assert resolve_precision(asked, device) == found
        else:
            with pytest.raises(DeviceError, match=f"has no bf16.*'precision: auto' \\({formats['auto']} there\\)"):
                resolve_precision(asked, device)
