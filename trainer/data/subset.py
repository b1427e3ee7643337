"""The images a run trains on: the thesis's stratified subsets, bit for bit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the planner needs sizes only
    import numpy as np
    import numpy.typing as npt


def subset_size(ratio: float, samples: int) -> int:
    """Return how many of `samples` images a ratio keeps: rounded down, as in scikit-learn."""
    return samples if ratio == 1 else math.floor(ratio * samples)


def subset_problem(ratio: float, samples: int, classes: int) -> str | None:
    """Return why a stratified subset of this ratio cannot be drawn, None if it can; assumes classes of equal size."""
    kept = subset_size(ratio, samples)
    if kept < classes:
        return f"ratio {ratio} keeps {kept} of {samples} images, fewer than the {classes} classes"
    if ratio < 1 and samples - kept < classes:
        return f"ratio {ratio} leaves out {samples - kept} images, fewer than the {classes} classes; use 1.0 for all"
    return None


def draw_subset(labels: npt.NDArray[np.int64], ratio: float, seed: int) -> npt.NDArray[np.int64]:
    """Draw a stratified subset. labels: (N,). Returns (n,) indices into the dataset's own order.

    Equals the thesis's train_test_split(range(N), train_size=ratio, stratify=labels, random_state=seed), without the
    half second that scikit-learn takes to import; at ratio 1, the whole set in its own order. Raises ValueError if a
    class would be missing.
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
    """Draw `wanted` indices, each class by its share, as StratifiedShuffleSplit of scikit-learn 1.4-1.7 does."""
    import numpy as np

    _, of_class, counts = np.unique(labels, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(of_class, kind="stable"), np.cumsum(counts)[:-1])
    takes = _apportion(counts, wanted, random)
    _apportion(counts - takes, len(labels) - wanted, random)  # the other split's draw, which advances the generator
    kept = [indices.take(random.permutation(len(indices)))[:take] for indices, take in zip(members, takes, strict=True)]
    return np.asarray(random.permutation(np.concatenate(kept)), dtype=np.int64)


def _apportion(counts: npt.NDArray[np.int64], total: int, random: np.random.RandomState) -> npt.NDArray[np.int64]:
    """Distribute `total` in proportion to counts by the largest remainders, ties at random."""
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
