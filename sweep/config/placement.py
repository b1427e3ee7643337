"""Which pool each run goes to, and whether it can be trained there."""

import re
from pathlib import Path
from typing import NamedTuple

import slurm
from slurm.pools import LOCAL, ClusterFile, candidate_pools, spread
from sweep.config.explain import validate
from sweep.config.grid import Cell
from sweep.config.operations import estimate_s
from sweep.config.schema import Cluster, ClusterSection, PlacedRun, SweepSection
from sweep.config.yaml_file import Location, YamlFile, read_yaml
from sweep.errors import InputError
from sweep.words import nearest
from trainer.data.catalog import DATASETS
from trainer.data.prepared import DataError, read_manifest
from trainer.data.subset import subset_problem, subset_size
from trainer.records.recipe import replica_problem, sharing_problem

CLUSTERS = Path(slurm.__file__).parent / "clusters"


class DatasetFacts(NamedTuple):
    """A dataset's sizes: of what is prepared in the data folder, the official ones before that."""

    classes: int
    image_size: int
    train_samples: int
    val_samples: int
    fingerprint: str | None


def dataset_facts(name: str, data: Path) -> DatasetFacts:
    try:
        manifest = read_manifest(data, name)
    except DataError as error:
        raise InputError(str(error)) from error
    if manifest is None:
        official = DATASETS[name]
        return DatasetFacts(official.classes, official.image_size, official.train_samples, official.val_samples, None)
    return DatasetFacts(
        len(manifest.classes),
        manifest.image_size,
        manifest.train_samples,
        manifest.val_samples,
        manifest.fingerprint,
    )


def check_gpus(source: YamlFile, section: SweepSection, cells: list[Cell]) -> None:
    """Refuse a number of GPUs that some run's replicas cannot be dealt out to, or that contradicts runs_per_gpu."""
    gpus = section.execution.gpus_per_run
    at: Location = ("execution", "gpus_per_run")
    for cell in cells:
        problem = sharing_problem(cell.spec.training, gpus)
        if problem:
            raise source.error(at, f"'execution.gpus_per_run' is {gpus}: {problem}")
    if gpus > 1 and section.cluster and section.cluster.runs_per_gpu > 1:
        words = f"and 'cluster.runs_per_gpu' is {section.cluster.runs_per_gpu}; leave one of them at 1"
        raise source.error(at, f"'execution.gpus_per_run' is {gpus} {words}")


def load_cluster(source: YamlFile, section: ClusterSection | None, instead: str | None) -> Cluster | None:
    """Read the cluster file the sweep names, or the one given instead, and check the rules against its pools."""
    if section is None:
        if instead is not None:
            raise source.error((), f"'--cluster {instead}' needs a 'cluster' section that says which runs go where")
        return None
    name = instead or section.file
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        path = CLUSTERS / f"{name}.yaml"
        if not path.exists():
            known = [found.stem for found in sorted(CLUSTERS.glob("*.yaml"))]
            if instead:
                raise InputError(f"--cluster {name}: no such cluster{nearest(name, known)}")
            raise source.error(("cluster", "file"), f"no cluster '{name}'{nearest(name, known)}")
    else:
        path = Path(name) if instead else source.path.parent / name
    loaded: ClusterFile = validate(read_yaml(path), ClusterFile)
    axes = list(source.data["grid"])
    for index, rule in enumerate(section.assign):
        at: Location = ("cluster", "assign", index)
        for pool in rule.pools:
            if pool not in loaded.pools:
                raise source.error((*at, "pool"), f"no pool '{pool}' in {path.name}{nearest(pool, loaded.pools)}")
        for axis in rule.when:
            if axis not in axes:
                raise source.error((*at, "when", axis), f"'{axis}' is no axis of the grid{nearest(axis, axes)}")
    return Cluster(path, loaded.pools, section)


def choose_pools(
    source: YamlFile, cluster: Cluster | None, facts: dict[str, "DatasetFacts"], cells: list[Cell]
) -> list[str]:
    """Give each cell its pool; without a cluster, this machine is the one pool."""
    if cluster is None:
        return [LOCAL] * len(cells)
    # By operations also where runs were timed: a pool chosen anew for what is left would move runs about.
    costs = []
    for cell in cells:
        candidates = candidate_pools(cell.axes, cluster.section.assign)
        if not candidates:
            words = f"no rule gives {cell.spec.run.id} a pool; end the list with a rule without 'when'"
            raise source.error(("cluster", "assign"), words)
        fact = facts[cell.axes["dataset"]]
        costs.append(
            {
                pool: estimate_s(
                    cell.spec,
                    device=cluster.pools[pool].device,
                    image_size=fact.image_size,
                    train_samples=subset_size(cell.spec.run.ratio, fact.train_samples),
                    val_samples=fact.val_samples,
                )
                for pool in candidates
            }
        )
    return spread(costs)


def place(
    source: YamlFile, section: SweepSection, cluster: Cluster | None, pool: str, facts: "DatasetFacts", cell: Cell
) -> PlacedRun:
    """Put a run into its pool and check that its subset can be trained on."""
    run = cell.spec.run
    at: Location = ("grid", "ratio", section.grid["ratio"].index(run.ratio))
    problem = subset_problem(run.ratio, facts.train_samples, facts.classes)
    train_samples = subset_size(run.ratio, facts.train_samples)
    problem = problem or replica_problem(train_samples, cell.spec.training)
    if problem:
        raise source.error(at, f"{DATASETS[run.dataset].title}: {problem}")
    device = cluster.pools[pool].device if cluster else "cpu"
    return PlacedRun(cell, pool, device, train_samples, facts.val_samples, facts.image_size)


def check_rules_used(source: YamlFile, cluster: ClusterSection, cells: list[Cell]) -> None:
    """Refuse a rule that matches no run: it is a typing error or a leftover."""
    for index, rule in enumerate(cluster.assign):
        if not any(rule.matches(cell.axes) for cell in cells):
            raise source.error(
                ("cluster", "assign", index), f"the rule for pool '{', '.join(rule.pools)}' matches no run"
            )
