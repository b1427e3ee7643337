"""The official facts of each dataset: names, sizes, checksums, normalisation."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Dataset:
    """A dataset. mean, std: per channel, of pixel values scaled to [0, 1].

    augmentation: "crop" pads by 4 and crops at random, "resized_crop" is RandomResizedCrop; both mirror half of them.
    """

    name: str
    title: str
    classes: int
    image_size: int
    train_samples: int
    val_samples: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    augmentation: Literal["crop", "resized_crop"]
    archive: str
    md5: str
    url: str


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="cifar10",
            title="CIFAR-10",
            classes=10,
            image_size=32,
            train_samples=50_000,
            val_samples=10_000,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
            augmentation="crop",
            archive="cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        ),
        Dataset(
            name="tinyimagenet",
            title="TinyImageNet",
            classes=200,
            image_size=64,
            train_samples=100_000,
            val_samples=10_000,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            augmentation="resized_crop",
            archive="tiny-imagenet-200.zip",
            md5="90528d7ca1a48142e341f4ef8d21d0de",
            url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        ),
    )
}
