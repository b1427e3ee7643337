"""The training recipe: every choice that changes what a run computes, its limits, its hash.

What only changes how fast it is computed (device, threads, checkpoint interval) is not here. Standard library and
pydantic only: the planner and the reports read recipes without torch.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(strict=True, ge=1)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, lt=1)]

Precision = Literal["fp32", "bf16", "fp16", "auto"]


class Recipe(BaseModel):
    """How a run trains; the defaults are the thesis's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: PositiveInt = 180
    batch_size: Annotated[int, Field(strict=True, ge=2, description="images a step and replica")] = 128
    replicas: PositiveInt = 4
    learning_rate: PositiveFloat = 3e-4
    lr_milestones: tuple[PositiveInt, ...] = (100, 150)
    lr_decay: PositiveFloat = 0.1
    weight_decay: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 0.01
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    epsilon: PositiveFloat = 1e-8
    dropout: Fraction = 0.2
    augmentation: Annotated[bool, Field(strict=True)] = True
    precision: Precision = "fp32"

    @model_validator(mode="after")
    def _milestones_rise(self) -> "Recipe":
        if list(self.lr_milestones) != sorted(set(self.lr_milestones)):
            raise ValueError(f"lr_milestones must rise, got {list(self.lr_milestones)}")
        return self

    @property
    def hash(self) -> str:
        """sha256 of the resolved recipe: equal hashes, equal training."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch (counted from 0): MultiStepLR's closed form."""
        return self.learning_rate * self.lr_decay ** sum(epoch >= milestone for milestone in self.lr_milestones)


def replica_batch(train_samples: int, recipe: Recipe) -> tuple[int, int]:
    """(images a replica takes each step, steps an epoch), the last short batch dropped.

    A permutation is padded to a multiple of the replicas and dealt out, as DistributedSampler does. A replica that
    holds fewer images than batch_size takes them all in one step (the thesis took no step at all there).
    """
    per_replica = -(-train_samples // recipe.replicas)
    batch = min(recipe.batch_size, per_replica)
    return batch, per_replica // batch


def replica_problem(train_samples: int, recipe: Recipe) -> str | None:
    """Why this many images cannot feed the recipe's replicas, None if they can."""
    batch, _ = replica_batch(train_samples, recipe)
    if batch >= 2:
        return None
    return (
        f"{train_samples} images give each of {recipe.replicas} replicas a batch of {batch}, and batch statistics "
        f"need 2; use at least {2 * recipe.replicas} images or fewer replicas"
    )


def sharing_problem(recipe: Recipe, processes: int) -> str | None:
    """Why so many processes, or GPUs, cannot share the recipe's replicas; None if they can."""
    if recipe.replicas % processes == 0:
        return None
    fitting = [str(count) for count in range(1, recipe.replicas + 1) if recipe.replicas % count == 0]
    return f"{processes} cannot share {recipe.replicas} replicas evenly; use {' or '.join(fitting)}"
