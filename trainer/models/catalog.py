"""Each architecture's names and the cost of its forward pass. No torch."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """forward_macs: multiply-accumulates of one image's forward pass, given the image size in pixels."""

    name: str
    title: str
    forward_macs: Callable[[int], float]


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


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture(name="resnet18", title="ResNet-18", forward_macs=_resnet18_macs),
        Architecture(name="vit", title="ViT", forward_macs=_vit_macs),
    )
}
