"""Which images of a dataset a run trains on: the thesis's stratified subsets, bit for bit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the planner asks for sizes only
    import numpy as np
    import numpy.typing as npt


def subset_size(ratio: float, samples: int) -> int:
    """Give how many of `samples` images a ratio keeps: scikit-learn rounds down."""
    return samples if ratio == 1 else math.floor(ratio * samples)


def subset_problem(ratio: float, samples: int, classes: int) -> str | None:
    """Say why a stratified subset of this ratio cannot be drawn, None if it can. For evenly filled classes."""
    kept = subset_size(ratio, samples)
    if kept < classes:
        return f"ratio {ratio} keeps {kept} of {samples} images, fewer than the {classes} classes"
    if ratio < 1 and samples - kept < classes:
        return f"ratio {ratio} leaves out {samples - kept} images, fewer than the {classes} classes; use 1.0 for all"
    return None


def draw_subset(labels: npt.NDArray[np.int64], ratio: float, seed: int) -> npt.NDArray[np.int64]:
    """Draw a class-balanced subset. labels: (N,). Returns (n,) indices into the dataset's own order.

    What scikit-learn's train_test_split(range(N), train_size=ratio, stratify=labels, random_state=seed) keeps, the
    thesis's call, without the half second it takes to import; at ratio 1 the whole set in its order. Raises ValueError
    when a class would be missing.
    """
    import numpy as np

    if ratio == 1:
        return np.arange(len(labels))
    problem = subset_problem(ratio, len(labels), len(np.unique(labels)))
    if problem:
        raise ValueError(problem)
    kept = _stratified(labels, subset_size(ratio, len(labels)), np.random.RandomState(seed))
    lost = sorted(set(labels.tolist()) - set(labels[kept].tolist()))
    if lost:
        raise ValueError(f"ratio {ratio} keeps no image of class {lost[0]}")
    return kept


def _stratified(labels: npt.NDArray[np.int64], wanted: int, random: np.random.RandomState) -> npt.NDArray[np.int64]:
    """Draw `wanted` of the indices, each class by its share, as StratifiedShuffleSplit of scikit-learn 1.4-1.7 does."""
    import numpy as np

    _, of_class, counts = np.unique(labels, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(of_class, kind="stable"), np.cumsum(counts)[:-1])
    takes = _apportion(counts, wanted, random)
    _apportion(counts - takes, len(labels) - wanted, random)  # the rest's turn, for it draws from the same numbers
    kept = [mine.take(random.permutation(len(mine)))[:take] for mine, take in zip(members, takes, strict=True)]
    return np.asarray(random.permutation(np.concatenate(kept)), dtype=np.int64)


def _apportion(counts: npt.NDArray[np.int64], total: int, random: np.random.RandomState) -> npt.NDArray[np.int64]:
    """Share `total` out in proportion to counts; what rounding leaves goes to the largest remainders, ties by lot."""
    import numpy as np

    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    missing = int(total - shares.sum())
    remainders = exact - shares
    for value in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        (tied,) = np.where(remainders == value)
        chosen = random.choice(tied, size=min(len(tied), missing), replace=False)
        shares[chosen] += 1
        missing -= len(chosen)
    taken: npt.NDArray[np.int64] = shares.astype(np.int64)
    return taken
