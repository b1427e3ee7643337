"""Which images, and in which order: torch's DistributedSampler's dealing, scikit-learn's stratified subset."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split
from torch.utils.data import BatchSampler
from torch.utils.data.distributed import DistributedSampler

from trainer.data.catalog import DATASETS
from trainer.data.order import PURPOSES, draw_seed, epoch_order, generator
from trainer.data.subset import draw_subset, subset_problem, subset_size
from trainer.records.recipe import Recipe, replica_batch, replica_problem

RATIOS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.4, 0.6, 0.8, 1.0)
TABLE_4_2 = {
    "tinyimagenet": "1,000 2,000 3,000 5,000 7,500 10,000 15,000 20,000 25,000 40,000 60,000 80,000 100,000",
    "cifar10": "500 1,000 1,500 2,500 3,750 5,000 7,500 10,000 12,500 20,000 30,000 40,000 50,000",
}


def steps_of(samples: int, replicas: int, batch_size: int) -> tuple[int, int]:
    return replica_batch(samples, Recipe(replicas=replicas, batch_size=batch_size))


@pytest.mark.parametrize(
    ("samples", "replicas", "batch_size"),
    [(48, 4, 4), (53, 4, 3), (54, 4, 5), (17, 3, 4), (40, 1, 8), (500, 4, 128), (1030, 4, 128), (9, 4, 128)],
)
def test_images_are_dealt_out_as_distributed_sampler_does(samples: int, replicas: int, batch_size: int) -> None:
    """Fed the same permutation, DistributedSampler and drop_last batches give each replica the same images, in order.

    That holds the padding (the permutation's head again), the dealing in turn, and the last short batch's drop.
    """
    batch, steps = steps_of(samples, replicas, batch_size)
    permutation = torch.randperm(samples, generator=generator(42, 3, "order"))
    order = epoch_order(samples, replicas, batch, steps, 42, 3).view(steps, replicas, batch)
    for replica in range(replicas):
        sampler = DistributedSampler(range(samples), num_replicas=replicas, rank=replica, shuffle=False)
        expected = [permutation[indices].tolist() for indices in BatchSampler(sampler, batch, drop_last=True)]
        assert order[:, replica].tolist() == expected


def test_an_image_comes_once_an_epoch_save_for_the_padding() -> None:
    """Nothing is drawn twice but the permutation's head where it fills up the last round."""
    assert len(epoch_order(48, 4, 4, 3, 42, 0).unique()) == 48
    padded = epoch_order(50, 4, 13, 1, 42, 0).flatten()
    permutation = torch.randperm(50, generator=generator(42, 0, "order"))
    images, times = padded.unique(return_counts=True)
    assert len(images) == 50
    assert sorted(images[times == 2].tolist()) == sorted(permutation[:2].tolist())
    for share in padded.chunk(4):
        assert len(share.unique()) == 13


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    """The same pair gives the same order whatever was drawn before; every other pair gives another."""
    torch.manual_seed(1)
    first = epoch_order(64, 4, 8, 2, 42, 1)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(first, epoch_order(64, 4, 8, 2, 42, 1))
    assert torch.equal(before, torch.get_rng_state())
    orders = {(seed, epoch): epoch_order(64, 4, 8, 2, seed, epoch) for seed in range(41, 46) for epoch in range(5)}
    assert len({tuple(order.flatten().tolist()) for order in orders.values()}) == 25
    assert not torch.equal(orders[43, 0], orders[42, 1])


def test_no_two_draws_share_a_seed() -> None:
    """Purposes, epochs and seeds are kept apart: the study's 3 x 180 x 4 draws have as many seeds, all of 63 bits."""
    seeds = [draw_seed(seed, epoch, purpose) for seed in (42, 43, 44) for epoch in range(180) for purpose in PURPOSES]
    assert len(set(seeds)) == 3 * 180 * 4
    assert 2**61 < max(seeds) < 2**63
    assert min(seeds) >= 0


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (500, (125, 1)),
        (1_000, (128, 1)),
        (1_500, (128, 2)),
        (50_000, (128, 97)),
        (100_000, (128, 195)),
        (512, (128, 1)),
    ],
)
def test_a_replica_takes_the_batches_of_the_thesis(samples: int, expected: tuple[int, int]) -> None:
    """floor(n / 4 / 128) batches of 128; 500 images, on which the thesis took no step, give one of 125."""
    assert replica_batch(samples, Recipe()) == expected


def test_too_few_images_for_the_replicas_are_refused_with_the_reason() -> None:
    """Below two images a replica there are no batch statistics; the refusal says how many it takes."""
    assert replica_problem(5, Recipe()) is None
    assert replica_problem(8, Recipe()) is None
    problem = replica_problem(4, Recipe())
    assert problem is not None
    assert "4 images give each of 4 replicas a batch of 1" in problem
    assert "at least 8 images" in problem


@pytest.mark.parametrize("ratio", [0.01, 0.075, 0.15, 0.6, 0.8, 0.99])
@pytest.mark.parametrize("seed", [42, 43, 44])
def test_the_subset_is_the_thesis_s_call(ratio: float, seed: int) -> None:
    """train_test_split over range(n), stratified, seeded: the same images in the same order."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 200))
    expected, _ = train_test_split(range(2000), train_size=ratio, stratify=labels, random_state=seed)
    kept = draw_subset(labels, ratio, seed)
    assert kept.tolist() == list(expected)
    assert kept.dtype == np.int64
    assert len(kept) == subset_size(ratio, 2000)
    assert set(np.bincount(labels[kept])) <= {int(ratio * 200), int(ratio * 200) + 1}


def test_ratio_1_is_the_whole_set_in_its_order() -> None:
    """Nothing is drawn or moved when everything is kept."""
    assert draw_subset(np.arange(30) % 10, 1.0, 42).tolist() == list(range(30))


@pytest.mark.parametrize("dataset", sorted(TABLE_4_2))
def test_subset_sizes_are_table_4_2(dataset: str) -> None:
    """All 13 ratios of both datasets keep the chapter's numbers of images, without a rounding error."""
    samples = DATASETS[dataset].train_samples
    sizes = [f"{subset_size(ratio, samples):,}" for ratio in RATIOS]
    assert sizes == TABLE_4_2[dataset].split()
    assert all(subset_problem(ratio, samples, DATASETS[dataset].classes) is None for ratio in RATIOS)


def test_a_subset_of_the_official_size_has_its_planned_size() -> None:
    """What is drawn from CIFAR-10's 50,000 labels is what the plan counted, 375 of each class at 0.075."""
    labels = np.arange(50_000) % 10
    kept = draw_subset(labels, 0.075, 42)
    assert np.bincount(labels[kept]).tolist() == [375] * 10


@pytest.mark.parametrize(
    ("ratio", "reason"),
    [
        (0.04, "ratio 0.04 keeps 8 of 200 images, fewer than the 10 classes"),
        (0.98, "ratio 0.98 leaves out 4 images, fewer than the 10 classes; use 1.0 for all"),
    ],
)
def test_a_subset_that_cannot_be_drawn_is_refused_with_the_reason(ratio: float, reason: str) -> None:
    """Too few kept or too few left out: the refusal says how many, before scikit-learn says something else."""
    assert subset_problem(ratio, 200, 10) == reason
    with pytest.raises(ValueError, match=reason):
        draw_subset(np.arange(200) % 10, ratio, 42)


def test_a_subset_without_one_of_the_classes_is_refused() -> None:
    """A class too rare to be kept is named rather than left out in silence."""
    labels = np.array([0] * 500 + [1] * 500 + [2] * 2)
    with pytest.raises(ValueError, match="keeps no image of class 2"):
        draw_subset(labels, 0.1, 42)


@pytest.mark.parametrize("seed", range(20))
def test_a_subset_of_uneven_classes_is_scikit_learn_s(seed: int) -> None:
    """Shares that do not come out even, ties drawn by lot: the same images in the same order, whatever the ratio."""
    random = np.random.default_rng(seed)
    counts = random.choice([20, 21, 21, 35, 50], size=7)
    labels = random.permutation(np.repeat(np.arange(7), counts))
    for ratio in (0.1, 0.123, 0.25, 1 / 3, 0.5, 0.77, 0.9):
        expected, _ = train_test_split(range(len(labels)), train_size=ratio, stratify=labels, random_state=seed)
        assert draw_subset(labels, ratio, seed).tolist() == expected
