"""Augment and normalise whole batches on the device, each image with its own random draws.

The draws are made on the CPU, so they are the same on every device; the pixels are transformed where the images are.
torchvision's batch transforms draw once for the whole batch, which is another augmentation.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.data.catalog import Dataset

PADDING = 4
SCALE = (0.8, 1.0)
ASPECT = (3 / 4, 4 / 3)
TRIES = 10


class Boxes(NamedTuple):
    """Where each image is cropped, and whether it is mirrored: five tensors (N,), in pixels (int64), flip bool."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor

    def take(self, index: int | slice) -> "Boxes":
        return Boxes(*(field[index] for field in self))

    def to(self, device: torch.device) -> "Boxes":
        return Boxes(*(field.to(device, non_blocking=True) for field in self))


def draw_boxes(dataset: Dataset, count: int, generator: torch.Generator) -> Boxes:
    """Draw the dataset's augmentation for `count` images, on the CPU."""
    if dataset.augmentation == "crop":
        return _draw_crops(dataset.image_size, count, generator)
    return _draw_resized_crops(dataset.image_size, count, generator)


def augment(dataset: Dataset, images: Tensor, boxes: Boxes) -> Tensor:
    """Crop and mirror each image by its own box. images: (N, 3, S, S) uint8. Returns float, 0 to 255, same shape."""
    if dataset.augmentation == "crop":
        return padded_crop(images, boxes)
    return resized_crop(images, boxes)


def padded_crop(images: Tensor, boxes: Boxes) -> Tensor:
    """Pad by 4 black pixels, crop S×S at each image's own (top, left), mirror where flip is set.

    images: (N, 3, S, S) uint8, any device. Returns (N, 3, S, S) float in channels-last memory order.
    """
    size = images.shape[-1]
    padded = F.pad(images, (PADDING,) * 4)
    offset = torch.arange(size, device=images.device)
    rows = boxes.top[:, None] + offset
    columns = boxes.left[:, None] + torch.where(boxes.flip[:, None], size - 1 - offset, offset)
    image = torch.arange(len(images), device=images.device)
    cropped = padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2).float()


def resized_crop(images: Tensor, boxes: Boxes) -> Tensor:
    """Crop each image's own box and resize it to S×S, bilinear; mirror where flip is set.

    Bilinear sampling is a product with one interpolation matrix per axis. Positions are clamped to the box, so no pixel
    outside it leaks in, as if cropped before resizing. A box never exceeds S, so nothing shrinks and no antialiasing
    applies. Equals Pillow's to the grey level. images: (N, 3, S, S) uint8, any device. Returns the same shape, float.
    """
    size = images.shape[-1]
    rows = _interpolation(boxes.top, boxes.height, torch.zeros_like(boxes.flip), size)
    columns = _interpolation(boxes.left, boxes.width, boxes.flip, size)
    across = _to_levels(torch.einsum("ncij,nxj->ncix", images.float(), columns))
    return _to_levels(torch.einsum("nyi,ncix->ncyx", rows, across)).clamp_(0, 255)


def _to_levels(values: Tensor) -> Tensor:
    """Round in place to whole grey levels, halves up, as Pillow does after each of its two passes."""
    return values.add_(0.5).floor_()


def normalise(dataset: Dataset, images: Tensor) -> Tensor:
    """Scale pixels to [0, 1], subtract the channel means, divide by the deviations. images: (N, 3, S, S), 0 to 255."""
    mean, std = _statistics(dataset, images.device)
    return (images.float() / 255 - mean) / std


@cache
def _statistics(dataset: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return means and deviations (1, 3, 1, 1), copied to the device once: each copy makes the CPU wait for a GPU."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (dataset.mean, dataset.std))
    return mean, std


def _draw_crops(size: int, count: int, generator: torch.Generator) -> Boxes:
    top, left = torch.randint(0, 2 * PADDING + 1, (2, count), generator=generator)
    extent = torch.full((count,), size)
    return Boxes(top, left, extent, extent, _draw_flips(count, generator))


def _draw_resized_crops(size: int, count: int, generator: torch.Generator) -> Boxes:
    """Draw RandomResizedCrop's boxes: of ten areas and aspects the first that fits, else the whole image."""
    area = torch.empty(count, TRIES).uniform_(*SCALE, generator=generator) * size * size
    aspect = torch.empty(count, TRIES).uniform_(*(math.log(a) for a in ASPECT), generator=generator).exp()
    width = (area * aspect).sqrt().round().long()
    height = (area / aspect).sqrt().round().long()
    fits = (width <= size) & (height <= size)
    first = fits.int().argmax(dim=1, keepdim=True)
    whole = torch.full((count,), size)
    width = torch.where(fits.any(dim=1), width.gather(1, first).squeeze(1), whole)
    height = torch.where(fits.any(dim=1), height.gather(1, first).squeeze(1), whole)
    top = (torch.rand(count, generator=generator) * (size - height + 1)).long()
    left = (torch.rand(count, generator=generator) * (size - width + 1)).long()
    return Boxes(top, left, height, width, _draw_flips(count, generator))


def _draw_flips(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) < 0.5


def _interpolation(start: Tensor, extent: Tensor, flip: Tensor, size: int) -> Tensor:
    """Compute each image's bilinear weights output one axis: (N, output, source), rows sum to 1."""
    output = torch.arange(size, device=start.device)
    output = torch.where(flip[:, None], size - 1 - output, output)
    position = (output + 0.5) * (extent[:, None] / size) - 0.5
    position = position.clamp_min(0).minimum(extent[:, None] - 1) + start[:, None]
    source = torch.arange(size, device=start.device)
    weights: Tensor = 1 - (position[:, :, None] - source).abs()
    return weights.clamp_min_(0)
