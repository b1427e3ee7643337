"""Whether what lies on disk is of the work that is wanted."""

import pytest

from trainer.records.recipe import Recipe
from trainer.records.run import Commitment, Other, Run, RunSpec, other_work

RUN = Run(id="vit-cifar10-r0.1-s42", architecture="vit", dataset="cifar10", ratio=0.1, seed=42)
ANOTHER = RUN.model_copy(update={"seed": 43})
WANTED = RunSpec(run=RUN, training=Recipe())
LONGER = Recipe(epochs=181)


@pytest.mark.parametrize(
    ("found", "fingerprint", "other"),
    [
        (Commitment(run=RUN, training=Recipe(), data_fingerprint="a"), "a", None),
        (Commitment(run=RUN, training=Recipe(), data_fingerprint="a"), None, None),
        (Commitment(run=RUN, training=Recipe(), data_fingerprint="a"), "b", Other.DATASET),
        (Commitment(run=RUN, training=LONGER, data_fingerprint="a"), "b", Other.RECIPE),
        (Commitment(run=ANOTHER, training=LONGER, data_fingerprint="a"), "b", Other.RUN),
    ],
)
def test_the_first_thing_that_differs_is_named(found: Commitment, fingerprint: str | None, other: Other | None) -> None:
    """The run before its recipe before its data; data that nobody knows differ from none."""
    assert other_work(found, WANTED, fingerprint) is other


def test_a_commitment_is_work_that_can_be_wanted() -> None:
    """With its own data it is never of other work than itself."""
    commitment = Commitment(run=RUN, training=Recipe(), data_fingerprint="a")
    assert other_work(commitment, commitment, commitment.data_fingerprint) is None
