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

    train_test_split(range(N), train_size=ratio, stratify=labels, random_state=seed), the thesis's call; at ratio 1 the
    whole set in its order. Raises ValueError when a class would be missing.
    """
    import numpy as np

    if ratio == 1:
        return np.arange(len(labels))
    problem = subset_problem(ratio, len(labels), len(np.unique(labels)))
    if problem:
        raise ValueError(problem)
    from sklearn.model_selection import train_test_split  # 0.5 s to import, and only needed here

    kept, _ = train_test_split(np.arange(len(labels)), train_size=ratio, stratify=labels, random_state=seed)
    lost = sorted(set(labels.tolist()) - set(labels[kept].tolist()))
    if lost:
        raise ValueError(f"ratio {ratio} keeps no image of class {lost[0]}")
    return np.asarray(kept, dtype=np.int64)
