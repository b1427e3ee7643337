"""Whether code built for some GPUs runs on another."""

import pytest

from trainer.records.kernels import has_kernels


@pytest.mark.parametrize(
    ("built_for", "capability", "runs"),
    [
        (["sm_60", "sm_70"], "sm_70", True),
        (["sm_60"], "sm_61", True),
        (["sm_75"], "sm_70", False),
        (["sm_80"], "sm_90", False),
        (["sm_90a"], "sm_90", True),
        (["sm_100a"], "sm_103", False),
        (["sm_90", "compute_90"], "sm_100", False),
        (["sm_100"], "sm_103", True),
        ([], "sm_70", False),
        (["gfx90a:sramecc+:xnack-", "gfx942"], "gfx90a", True),
        (["gfx906", "sm_90"], "gfx90a", False),
    ],
)
def test_kernels_run_on_later_minor_versions_of_their_major_one(
    built_for: list[str], capability: str, runs: bool
) -> None:
    """NVIDIA's rule for compiled code; AMD's runs on nothing else."""
    assert has_kernels(built_for, capability) is runs
