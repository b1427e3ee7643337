"""What a sweep file may hold, section by section, and the sweep that comes of it."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from slurm.devices import Device
from slurm.pools import Pool, Rule, Strict
from trainer.models.catalog import Architecture, facts
from trainer.records.recipe import Recipe
from trainer.records.run import KeepCheckpoints, Run, RunSpec


class ClusterSection(Strict):
    """`cluster:` of a sweep file: which cluster, which runs go to which of its pools, and how they share jobs.

    stall_min: after so many minutes without a sign a run has stalled; 0 for never, None for what its epochs tell.
    """

    file: str
    assign: list[Rule]
    runs_per_gpu: Annotated[int, Field(strict=True, ge=1)] = 1
    max_parallel: Annotated[int, Field(strict=True, ge=1)] | None = None
    job_target_min: Annotated[float, Field(strict=True, ge=0)] = 30.0
    stall_min: Annotated[float, Field(strict=True, ge=0)] | None = None

    @property
    def stall_s(self) -> float | None:
        return None if self.stall_min is None else 60 * self.stall_min


class ExecutionSection(Strict):
    """`execution:` of a sweep file: how runs execute. Changes no result beyond rounding. workers: on this machine only.

    gpus_per_run: processes that share a run's replicas, each with a GPU of its own; on a CPU just processes.
    """

    workers: Annotated[int, Field(strict=True, ge=1)] | Literal["auto"] = "auto"
    gpus_per_run: Annotated[int, Field(strict=True, ge=1)] = 1
    device: str = "auto"
    checkpoint_interval_s: Annotated[float, Field(strict=True, ge=0)] = 30.0
    keep_checkpoints: KeepCheckpoints = "none"


class SweepSection(Strict):
    """The whole file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    grid: Any
    exclude: list[dict[str, Any]] = []
    only: list[dict[str, Any]] = []
    training: Recipe = Recipe()
    cluster: ClusterSection | None = None
    execution: ExecutionSection = ExecutionSection()
    output: str = "runs"
    data: str = "data"
    code: list[str] = []


class PlacedRun(NamedTuple):
    """A run as the sweep file has it: what it is, the pool it goes to, how many images it trains and validates.

    What became of it is a `RunStatus`, what it costs stands in a `PlanRow`, what plan.json keeps is a `PlannedRun`.
    variant: its place on the axes beyond the four, "" where there are none. race: pools that it is sent to as well, and
    their devices; the first whose job starts trains it.
    """

    spec: RunSpec
    pool: str
    device: Device
    image_size: int
    train_samples: int
    val_samples: int
    variant: str = ""
    race: tuple[tuple[str, Device], ...] = ()

    @property
    def everywhere(self) -> list["PlacedRun"]:
        """The run as each pool that it is sent to would have it."""
        return [self, *(self._replace(pool=pool, device=device) for pool, device in self.race)]

    @property
    def id(self) -> str:
        return self.spec.run.id


class Cluster(NamedTuple):
    """Where a sweep's runs go on Slurm: the pools of the cluster file, and how the sweep file wants them used."""

    file: Path
    pools: dict[str, Pool]
    section: ClusterSection


class Sweep(NamedTuple):
    """A sweep file that has passed every check.

    fingerprints: of the datasets that are prepared, by name. code: modules of the user's own that jobs import, by name.
    networks: those by reference, once they were measured.
    """

    file: Path
    name: str
    runs: list[PlacedRun]
    cluster: Cluster | None
    execution: ExecutionSection
    folder: Path
    data: Path
    fingerprints: dict[str, str]
    code: tuple[str, ...] = ()
    networks: Mapping[str, Architecture] = MappingProxyType({})

    def network(self, run: Run) -> Architecture:
        """What is known of a run's network."""
        return facts(run.architecture, self.networks)


def sharing(sweep: Sweep, cluster: Cluster) -> dict[str, int]:
    """How many runs share a job and how many GPUs a run has, as slurm's functions take them."""
    return {"workers": cluster.section.runs_per_gpu, "gpus": sweep.execution.gpus_per_run}
