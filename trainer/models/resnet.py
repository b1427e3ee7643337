"""torchvision 0.22's ResNet-18: the same modules with the same names, initialised in the same order.

Importing torchvision takes longer (1.7 s of one core of a 2023 Xeon, most of it torch's compiler) than an epoch of many
runs. Tests compare weights, scores and gradients with torchvision's.
Source: He et al. 2015, "Deep Residual Learning for Image Recognition"; BasicBlock, 2-2-2-2.
"""

from collections.abc import Callable

from torch import Tensor, nn

from trainer.models.convolution import CompactConv2d

Norm = Callable[[int], nn.Module]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, which is a 1×1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module | None, norm: Norm) -> None:
        super().__init__()
        self.conv1 = CompactConv2d(inputs, outputs, 3, stride)
        self.bn1 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = CompactConv2d(outputs, outputs, 3)
        self.bn2 = norm(outputs)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += shortcut
        return self.relu(out)  # type: ignore[no-any-return]


class ResNet18(nn.Module):
    """ResNet-18 with its 7×7 stem; norm: creates the normalisation layer of a number of channels."""

    def __init__(self, classes: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = norm(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _stage(64, 64, 1, norm)
        self.layer2 = _stage(64, 128, 2, norm)
        self.layer3 = _stage(128, 256, 2, norm)
        self.layer4 = _stage(256, 512, 2, norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Score the classes. images: (N, 3, S, S) float. Returns (N, classes)."""
        x = self.relu(self.maxpool(self.bn1(self.conv1(images))))  # torchvision's order gives the same result, slower
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))  # type: ignore[no-any-return]


def _stage(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Sequential:
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride, shortcut, norm), BasicBlock(outputs, outputs, 1, None, norm)
    )
