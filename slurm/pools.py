"""Pools: the kinds of hardware a cluster offers, and which of them a run goes to. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Device = Literal["cpu", "p100", "v100", "a100", "h100"]

LOCAL = "local"


class Strict(BaseModel):
    """Known keys only."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Pool(Strict):
    """One kind of hardware, in Slurm's words. device names the hardware for the cost estimate."""

    device: Device
    partition: str
    gres: str | None = None
    constraint: str | None = None
    account: str | None = None
    qos: str | None = None
    cpus: Annotated[int, Field(strict=True, ge=1)] = 1
    memory_gb: Annotated[float, Field(strict=True, gt=0)] = 8.0
    time_limit_min: Annotated[int, Field(strict=True, ge=1)] = 60
    setup: list[str] = []


class ClusterFile(Strict):
    """A cluster and its pools by name."""

    name: str
    pools: dict[str, Pool]


class Rule(Strict):
    """Send the runs whose axes match `when` to a pool. A value matches itself, a list any of its items."""

    when: dict[str, Any] = {}
    pool: str

    def matches(self, axes: Mapping[str, Any]) -> bool:
        """Tell whether a run with these axes falls under the rule."""
        return all(
            axes[axis] in value if isinstance(value, list) else axes[axis] == value for axis, value in self.when.items()
        )


def assign_pool(axes: Mapping[str, Any], rules: Sequence[Rule]) -> str | None:
    """Give the pool of the first rule that matches, None if none does."""
    return next((rule.pool for rule in rules if rule.matches(axes)), None)
