"""Pools: the kinds of hardware a cluster offers, and which of them a run goes to. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from slurm.commands import options_in
from slurm.devices import Device, Named

LOCAL = "local"
Option = Annotated[str, Field(min_length=1)] | Annotated[int, Field(strict=True)] | bool
Export = Literal["all", "none"] | list[str]
# What the program itself asks for; a user's word would part it from what its records say.
_OURS = {
    "array",
    "error",
    "job-name",
    "open-mode",
    "output",
    "parsable",
    "requeue",
    "no-requeue",
    "signal",
    "wrap",
}
_KEYS = {
    "account": "account",
    "clusters": "clusters",
    "constraint": "constraint",
    "cpus-per-task": "cpus",
    "exclude": "exclude",
    "export": "export",
    "gres": "gres",
    "mem": "memory_gb",
    "partition": "partition",
    "qos": "qos",
    "time": "time_limit_min",
}


class Strict(BaseModel):
    """Known keys only."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Container(Strict):
    """What a pool's tasks run in. bind: what they see beside the sweep's own folders; python: the one inside."""

    image: str
    runtime: Literal["apptainer", "pyxis"] = "apptainer"
    bind: list[str] = []
    python: str = "python3"

    @field_validator("image", "python")
    @classmethod
    def _is_one_word(cls, name: str, info: ValidationInfo) -> str:
        if not re.fullmatch(r"[^-\s]\S*", name):
            example = "/path/to/image.sif" if info.field_name == "image" else "/opt/python/bin/python3"
            raise ValueError(f"give a name or a path without spaces, such as '{example}'")
        return name

    @field_validator("bind")
    @classmethod
    def _are_folders(cls, bind: list[str]) -> list[str]:
        for folder in bind:
            if not re.fullmatch(r"/[^:,\s]*(:/[^:,\s]*(:r[ow])?)?", folder):
                raise ValueError(f"'{folder}' is no '/folder', '/folder:/inside' or '/folder:/inside:ro'")
        return [folder if ":" in folder else f"{folder}:{folder}" for folder in bind]


class Pool(Strict):
    """One kind of hardware, in Slurm's words. device: what estimates and checks go by.

    cpus and memory_gb are what one run needs; a job that packs several on its GPU asks for as many times that, and so
    does one that gives a run several GPUs.
    gpu_memory_gb tells which pool is larger when a run outgrows its GPU; a device that is described in the cluster file
    says it too. mps: several runs on a GPU compute at a time through NVIDIA's multi-process service; before Volta it
    would put them all into one address space. partition, memory_gb, time_limit_min: None where the site gives it by
    itself. export: which of the submitter's variables a job gets, beside what a login on its node gives. clusters: None
    for the one that Slurm's commands speak to. sbatch: further options by their long names, given as they are.
    """

    device: Named
    clusters: str | None = None
    partition: Annotated[str, Field(min_length=1)] | None = None
    gres: str | None = None
    constraint: str | None = None
    account: str | None = None
    qos: str | None = None
    cpus: Annotated[int, Field(strict=True, ge=1)] = 1
    memory_gb: Annotated[float, Field(strict=True, gt=0)] | None = 8.0
    time_limit_min: Annotated[int, Field(strict=True, ge=1)] | None = 60
    gpu_memory_gb: Annotated[float, Field(strict=True, gt=0)] | None = Field(default=None, validate_default=True)
    mps: Annotated[bool, Field(strict=True)] = False
    export: Export = "all"
    modules: list[str] = []
    setup: list[str] = []
    container: Container | None = None
    exclude: list[str] = []
    sbatch: dict[str, Option] = {}

    @field_validator("time_limit_min", mode="before")
    @classmethod
    def _read_time(cls, limit: object) -> object:
        if not isinstance(limit, str):
            return limit
        try:
            return requested_minutes(limit)
        except ValueError as error:
            raise ValueError("give minutes, 'hours:minutes:seconds' or 'days-hours:minutes:seconds'") from error

    @field_validator("gpu_memory_gb")
    @classmethod
    def _or_what_the_device_has(cls, given: float | None, info: ValidationInfo) -> float | None:
        device = info.data.get("device")
        return device.memory_gb if given is None and isinstance(device, Device) and device.is_own else given

    @field_validator("sbatch")
    @classmethod
    def _leaves_ours_alone(cls, options: dict[str, Option]) -> dict[str, Option]:
        for name, value in options.items():
            if name in _KEYS:
                raise ValueError(f"'{name}' has a key of its own in a pool: '{_KEYS[name]}'")
            if name in _OURS:
                raise ValueError(f"'{name}' is this program's to set; leave it out")
            if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
                raise ValueError(f"'{name}' is no long option of sbatch, such as 'gpus-per-node'")
            if isinstance(value, str) and not value.isprintable():
                raise ValueError(f"'{name}' must be one line")
        return {name: value for name, value in options.items() if value is not False}

    @field_validator("clusters")
    @classmethod
    def _names_one_cluster(cls, name: str | None) -> str | None:
        if name is not None and (name == "all" or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name)):
            raise ValueError("give the name of one cluster; each has pools of its own")
        return name and name.lower()  # as accounting keeps them

    @field_validator("modules")
    @classmethod
    def _names_modules(cls, modules: list[str]) -> list[str]:
        for name in modules:
            if not re.fullmatch(r"\w\S*", name):
                raise ValueError(f"'{name}' is no module's name, such as 'cuda/12.1'")
        return modules

    @field_validator("export", mode="before")
    @classmethod
    def _names_variables(cls, export: object) -> object:
        if export in ("all", "none"):
            return export
        if not isinstance(export, list) or not export:
            raise ValueError("give 'all', 'none' or a list of variables' names")
        for name in map(str, export):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"'{name}' is no variable's name; a line of 'setup' sets one: 'export NAME=value'")
            if name in ("ALL", "NONE", "NIL"):
                raise ValueError(f"'{name}' is not for a list; write 'export: all' or 'export: none'")
            if options_in([name]):
                raise ValueError(f"'{name}' is Slurm's, and no job gets the submitter's; leave it out")
        return export

    @field_validator("mps")
    @classmethod
    def _keeps_runs_apart(cls, mps: bool, info: ValidationInfo) -> bool:
        device = info.data.get("device")
        if mps and isinstance(device, Device) and not device.has_mps:
            raise ValueError(f"needs a V100 or newer, not {device.name}; leave it out")
        return mps


class ClusterFile(Strict):
    """A cluster and its pools by name."""

    name: str
    pools: dict[str, Pool]


class Rule(Strict):
    """Send the runs whose axes match `when` to a pool, or to any of several.

    A value matches itself, a list any of its items. first: each run is sent to all of the pools, and trained in the one
    where a job of it starts first.
    """

    when: dict[str, Any] = {}
    pool: str | Annotated[list[str], Field(min_length=1)]
    first: bool = False

    @field_validator("first")
    @classmethod
    def _has_a_choice(cls, first: bool, info: ValidationInfo) -> bool:
        pools = info.data.get("pool")
        if first and (not isinstance(pools, list) or len(set(pools)) < 2):
            raise ValueError("needs several pools to choose from: 'pool: [one, another]'")
        return first

    @property
    def pools(self) -> list[str]:
        return [self.pool] if isinstance(self.pool, str) else self.pool

    def matches(self, axes: Mapping[str, Any]) -> bool:
        """Tell whether a run with these axes falls under the rule."""
        return all(
            axes[axis] in value if isinstance(value, list) else axes[axis] == value for axis, value in self.when.items()
        )


def requested_minutes(text: str) -> int:
    """Read a time limit as sbatch does, into whole minutes: "90", "90:00", "1:30:00", "2-0", "1-12:00:00".

    Raises ValueError.
    """
    days, dash, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:
        hours, minutes, _ = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, _ = parts
    else:
        hours, minutes = 0, parts[0]
    if len(parts) > 3 or min(parts) < 0:
        raise ValueError(text)
    return (int(days or 0) * 24 + hours) * 60 + minutes


def several_gpus(gres: str | None, count: int) -> str | None:
    """Ask for so many GPUs instead of one: the gres "gpu:v100:1" and 4 make "gpu:v100:4"."""
    if gres is None or count == 1:
        return gres
    return ",".join(
        f"{re.sub(r':[0-9]+$', '', item)}:{count}" if re.match(r"gpu\b", item) else item for item in gres.split(",")
    )


def rule_for(axes: Mapping[str, Any], rules: Sequence[Rule]) -> Rule | None:
    """The first rule that matches, None if none does."""
    return next((rule for rule in rules if rule.matches(axes)), None)


def spread(costs: Sequence[Mapping[str, float]]) -> list[str]:
    """Choose a pool for each run, given its seconds in each pool that may take it, so that all pools end early.

    The longest runs choose first, each the pool that would have it finished first. A grid is always spread alike.
    """
    loads: dict[str, float] = {}
    chosen = [""] * len(costs)
    for index in sorted(range(len(costs)), key=lambda index: -max(costs[index].values())):
        ends = {pool: loads.get(pool, 0.0) + seconds for pool, seconds in costs[index].items()}
        chosen[index] = min(ends, key=lambda pool: ends[pool])
        if len(ends) > 1:
            loads[chosen[index]] = ends[chosen[index]]
    return chosen
