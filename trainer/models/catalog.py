"""Each architecture's names, the cost of its forward pass, and the memory it takes. No torch.

An architecture is one of ours by name, or anyone's by reference: "module:function", or "torchvision:resnet34".
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Architecture:
    """forward_macs: multiply-accumulates of one image's forward pass, given the image size in pixels.

    parameters: to within 3 %, whatever the number of classes. step_bytes, evaluation_bytes: GPU memory an image takes
    in a training step and in an evaluation, in fp32, given the image size; reduced: the part of it in fp16 and bf16.
    in_turn: whether the replicas are computed one after the other.
    """

    name: str
    title: str
    forward_macs: Callable[[int], float]
    parameters: int
    step_bytes: Callable[[int], float]
    evaluation_bytes: Callable[[int], float]
    reduced: float
    in_turn: bool = False


def _resnet18_macs(image_size: int) -> float:
    """37.0 M at 32 pixels (torchvision's network, counted layer by layer), proportional to the image's area."""
    return 37.0e6 * (image_size / 32) ** 2


def _vit_macs(image_size: int) -> float:
    """64 patches and the class token through 6 blocks, plus the patch embedding; patches grow with the image."""
    tokens, width, hidden, layers = 65, 256, 512, 6
    projections = 4 * width * width + 2 * width * hidden
    attention = 2 * tokens * width
    embedding = 64 * 3 * (image_size // 8) ** 2 * width
    return float(layers * tokens * (projections + attention) + embedding)


# Bytes are counted from the tensors that live at the peak of a step of four replicas, and of an evaluation.
_INPUT_BYTES = 9  # of each value of an image, on its way in

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="resnet18",
            title="ResNet-18",
            forward_macs=_resnet18_macs,
            parameters=11_279_112,
            step_bytes=lambda size: 456 * size**2,
            evaluation_bytes=lambda size: 143 * size**2,
            reduced=0.6,
        ),
        Architecture(
            name="vit",
            title="ViT",
            forward_macs=_vit_macs,
            parameters=3_280_840,
            step_bytes=lambda size: 5.34e6 + 3 * _INPUT_BYTES * size**2,
            evaluation_bytes=lambda size: 0.6e6 + 3 * _INPUT_BYTES * size**2,
            reduced=0.7,
        ),
    )
}


def is_reference(architecture: str) -> bool:
    """Whether an architecture is anyone's function, "module:function", and none of ours."""
    return REFERENCE.fullmatch(architecture) is not None


def short_name(architecture: str) -> str:
    """What an architecture is called in run ids: its name, or the name of the function that makes it."""
    return architecture.rpartition(":")[2]


def facts(architecture: str, measured: Mapping[str, Architecture] = MappingProxyType({})) -> Architecture:
    """What is known of an architecture before it is trained; measured: networks by reference.

    Of one that was not measured nothing is: it is taken to compute what ResNet-18 does, and to take no memory.
    """
    if architecture in measured:
        return measured[architecture]
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture]
    return replace(
        ARCHITECTURES["resnet18"],
        name=architecture,
        title=short_name(architecture),
        step_bytes=lambda size: 0.0,
        evaluation_bytes=lambda size: 0.0,
        in_turn=True,
    )
