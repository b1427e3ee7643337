"""Augmentation on whole batches is torchvision's augmentation image by image: the pixels, and the draws."""

import pytest
import torch
import torchvision.transforms.functional as TF  # as the field calls it
from PIL import Image
from rounding import rounding
from scipy.stats import chisquare, ks_2samp
from torch import Tensor
from torchvision.transforms import Compose, InterpolationMode, Normalize, RandomCrop, RandomResizedCrop, ToTensor
from training_fixtures import random_split

from trainer.data.augment import Boxes, augment, draw_boxes, normalise, padded_crop, resized_crop
from trainer.data.catalog import DATASETS, Dataset

CIFAR10, TINY = DATASETS["cifar10"], DATASETS["tinyimagenet"]
DRAWS = 20_000


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_images(count: int, size: int) -> Tensor:
    """Draw waves, with whole-range contrast: what interpolation meets in a photograph."""
    along = torch.arange(size) / size
    phase, frequency = torch.rand(2, count, 3, 1, 1, generator=generator()) * 6
    waves = torch.sin(phase + 2 * frequency * along[:, None] - 9 * frequency * along * along[:, None])
    return ((waves + 1) * 127.5).round().to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    return TF.to_pil_image(image)


def from_pil(image: Image.Image) -> Tensor:
    return TF.pil_to_tensor(image)


def test_a_padded_crop_is_pil_s_at_every_offset_mirrored_or_not() -> None:
    """Pad 4, crop, flip with PIL: the same pixels exactly, for all 81 offsets and both mirrorings, all in one batch."""
    offsets = torch.cartesian_prod(torch.arange(9), torch.arange(9), torch.arange(2))
    count = len(offsets)
    images = random_split(count).images
    extent = torch.full((count,), 32)
    boxes = Boxes(offsets[:, 0], offsets[:, 1], extent, extent, offsets[:, 2].bool())
    found = padded_crop(images, boxes)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    for image, (top, left, flip), result in zip(images, offsets.tolist(), found, strict=True):
        expected = TF.crop(TF.pad(to_pil(image), [4]), top, left, 32, 32)
        assert torch.equal(result, from_pil(TF.hflip(expected) if flip else expected).float()), (top, left, flip)


@pytest.mark.parametrize("kind", ["noise", "smooth"])
def test_a_resized_crop_is_pil_s(kind: str) -> None:
    """Crop, resize bilinearly, flip with PIL: every grey level is the same."""
    count = 200
    boxes = draw_boxes(TINY, count, generator())
    images = random_split(count, size=64).images if kind == "noise" else smooth_images(count, 64)
    found = resized_crop(images, boxes)
    for index in range(count):
        top, left, height, width, flip = (field[index].item() for field in boxes)
        expected = TF.resized_crop(
            to_pil(images[index]), top, left, height, width, [64, 64], InterpolationMode.BILINEAR
        )
        assert torch.equal(from_pil(TF.hflip(expected) if flip else expected), found[index])
    assert 0 < boxes.flip.sum() < count


def test_a_box_of_the_whole_image_leaves_it_as_it_is() -> None:
    """Resizing 64 pixels to 64 changes nothing, and mirroring alone is exact."""
    images = random_split(2, size=64).images
    zero, whole = torch.zeros(2, dtype=torch.int64), torch.full((2,), 64)
    found = resized_crop(images, Boxes(zero, zero, whole, whole, torch.tensor([False, True])))
    assert torch.equal(found[0], images[0].float())
    assert torch.equal(found[1], images[1].flip(-1).float())


def test_no_pixel_outside_its_box_leaks_into_a_crop() -> None:
    """Whatever surrounds the box, the result is the same: cropping comes before resizing."""
    boxes = Boxes(*(torch.tensor([value]) for value in (3, 5, 53, 50)), torch.tensor([False]))
    image = random_split(1, size=64).images
    inside = torch.zeros_like(image, dtype=torch.bool)
    inside[..., 3 : 3 + 53, 5 : 5 + 50] = True
    assert torch.equal(resized_crop(image, boxes), resized_crop(torch.where(inside, image, 255 - image), boxes))


@pytest.mark.parametrize("dataset", [CIFAR10, TINY], ids=lambda dataset: dataset.name)
def test_every_image_has_its_own_draws(dataset: Dataset) -> None:
    """Within a batch the boxes differ, some images are mirrored and some not, and each is cut by its own box."""
    size = dataset.image_size
    boxes = draw_boxes(dataset, 64, generator())
    assert 16 < boxes.flip.sum() < 48
    assert len(set(zip(*(field.tolist() for field in boxes), strict=True))) > 40
    images = random_split(1, size=size).images.expand(64, -1, -1, -1)
    together = augment(dataset, images, boxes)
    alone = [augment(dataset, images[:1], boxes.take(slice(i, i + 1))) for i in range(64)]
    assert torch.equal(together, torch.cat(alone))
    assert len(together.flatten(1).unique(dim=0)) > 40


def test_each_dataset_gets_its_own_augmentation() -> None:
    """CIFAR-10 is padded and cropped, TinyImageNet cropped and resized."""
    for dataset, transform in ((CIFAR10, padded_crop), (TINY, resized_crop)):
        images = random_split(8, size=dataset.image_size).images
        boxes = draw_boxes(dataset, 8, generator())
        assert torch.equal(augment(dataset, images, boxes), transform(images, boxes))


def test_crop_offsets_are_uniform_from_0_to_8_and_independent() -> None:
    """All 81 offsets and both mirrorings occur equally often: RandomCrop(32, padding=4) and a fair coin."""
    boxes = draw_boxes(CIFAR10, DRAWS, generator())
    cells = (boxes.top * 9 + boxes.left) * 2 + boxes.flip
    assert chisquare(torch.bincount(cells, minlength=162).numpy()).pvalue > 0.001
    padded = torch.zeros(3, 40, 40)
    torch.manual_seed(3)
    theirs = torch.tensor([RandomCrop.get_params(padded, (32, 32)) for _ in range(2000)])
    assert theirs[:, 0].unique().tolist() == theirs[:, 1].unique().tolist() == boxes.top.unique().tolist()
    assert boxes.left.unique().tolist() == list(range(9))
    assert {*boxes.height.tolist(), *boxes.width.tolist()} == {32}


def test_resized_crop_boxes_are_drawn_as_torchvision_draws_them() -> None:
    """Area, aspect, extent and position have the distribution of RandomResizedCrop(64, scale=(0.8, 1.0))."""
    boxes = draw_boxes(TINY, DRAWS, generator())
    reference = RandomResizedCrop(64, scale=(0.8, 1.0))
    image = torch.zeros(3, 64, 64)
    torch.manual_seed(3)
    draws = [reference.get_params(image, reference.scale, reference.ratio) for _ in range(6000)]
    theirs = dict(zip(("top", "left", "height", "width"), torch.tensor(draws).T.double(), strict=True))
    ours = {name: getattr(boxes, name).double() for name in theirs}
    for boxed in (ours, theirs):
        boxed["area"] = boxed["height"] * boxed["width"]
        boxed["aspect"] = boxed["width"] / boxed["height"]
        boxed["bottom"] = 64 - boxed["top"] - boxed["height"]
        boxed["right"] = 64 - boxed["left"] - boxed["width"]
        boxed["corner"] = boxed["top"] - boxed["left"]
    for name, values in ours.items():
        assert ks_2samp(values.numpy(), theirs[name].numpy()).pvalue > 0.001, name
    assert boxes.flip.double().mean().item() == pytest.approx(0.5, abs=0.015)
    assert all((ours[name] >= 0).all() for name in ("top", "left", "bottom", "right"))


def test_draws_are_the_generator_s_alone() -> None:
    """The same generator gives the same boxes, and the global random state is neither read nor moved."""
    for dataset in (CIFAR10, TINY):
        torch.manual_seed(1)
        first = draw_boxes(dataset, 10, generator())
        torch.manual_seed(2)
        before = torch.get_rng_state()
        again = draw_boxes(dataset, 10, generator())
        assert torch.equal(before, torch.get_rng_state())
        assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
        other = draw_boxes(dataset, 10, generator(8))
        assert not all(torch.equal(*pair) for pair in zip(first, other, strict=True))


@pytest.mark.parametrize("dataset", [CIFAR10, TINY], ids=lambda dataset: dataset.name)
def test_normalisation_is_torchvision_s(dataset: Dataset) -> None:
    """Pixels become what ToTensor and Normalize make of them, from bytes and from augmented floats alike."""
    images = random_split(4, size=dataset.image_size).images
    transform = Compose([ToTensor(), Normalize(dataset.mean, dataset.std)])
    expected = torch.stack([transform(to_pil(image)) for image in images])
    for given in (images, images.float()):
        tolerance = rounding(torch.float32, depth=3, scale=expected.abs().max().item())
        torch.testing.assert_close(normalise(dataset, given), expected, atol=tolerance, rtol=0)
