"""Which pool each run goes to, and whether it can be trained there."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import slurm
from slurm.devices import CPU, Device
from slurm.pools import LOCAL, ClusterFile, Rule, rule_for, spread
from sweep.config.explain import validate
from sweep.config.grid import Cell, axes_of, place_of
from sweep.config.operations import estimate_s
from sweep.config.schema import Cluster, ClusterSection, PlacedRun, SweepSection
from sweep.config.yaml_file import Location, YamlFile, read_yaml
from sweep.errors import InputError
from sweep.words import nearest
from trainer.data.catalog import DATASETS
from trainer.data.prepared import DataError, read_manifest
from trainer.data.subset import subset_problem, subset_size
from trainer.records.recipe import replica_problem, sharing_problem
from trainer.records.run import RunSpec

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


def check_gpus(source: YamlFile, section: SweepSection, specs: Sequence[RunSpec]) -> None:
    """Refuse a number of GPUs that some run's replicas cannot be dealt out to, or that contradicts runs_per_gpu."""
    gpus = section.execution.gpus_per_run
    at: Location = ("execution", "gpus_per_run")
    for spec in specs:
        problem = sharing_problem(spec.training, gpus)
        if problem:
            raise source.error(at, f"'execution.gpus_per_run' is {gpus}: {problem}")
    if gpus > 1 and section.cluster and section.cluster.runs_per_gpu > 1:
        words = f"and 'cluster.runs_per_gpu' is {section.cluster.runs_per_gpu}; leave one of them at 1"
        raise source.error(at, f"'execution.gpus_per_run' is {gpus} {words}")


def load_cluster(
    source: YamlFile, section: ClusterSection | None, instead: str | None, axes: Sequence[str]
) -> Cluster | None:
    """Read the cluster file the sweep names, or the one given instead, and check the rules against its pools.

    A sweep that says nothing of clusters, sent to one all the same, may go to any of its pools.
    """
    name = instead or (section.file if section else None)
    if name is None:
        return None
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
    if section is None:
        return Cluster(path, loaded.pools, ClusterSection(file=name, assign=[Rule(pool=list(loaded.pools))]))
    for index, rule in enumerate(section.assign):
        at: Location = ("cluster", "assign", index)
        for pool in rule.pools:
            if pool not in loaded.pools:
                raise source.error((*at, "pool"), f"no pool '{pool}' in {path.name}{nearest(pool, loaded.pools)}")
        for axis in rule.when:
            if axis not in axes:
                raise source.error((*at, "when", axis), f"'{axis}' is no axis of the grid{nearest(axis, axes)}")
    return Cluster(path, loaded.pools, section)


def place_runs(
    source: YamlFile,
    cluster: Cluster | None,
    facts: Mapping[str, DatasetFacts],
    cells: Sequence[Cell],
    axes: Sequence[str],
) -> list[PlacedRun]:
    """Put every run into a pool; without a cluster, this machine is the one pool.

    Among several pools it goes by operations, also where runs were timed: a pool chosen anew for what is left would
    move runs about.
    """
    rules = [_rule(source, cluster, cell.spec, axes) for cell in cells]
    options = []
    for cell, rule in zip(cells, rules, strict=True):
        names = rule.pools[:1] if rule.first else rule.pools
        train_samples = _train_samples(source, facts[cell.spec.run.dataset], cell.spec)
        options.append({name: _placed(cell, name, cluster, facts, train_samples) for name in names})
    chosen = spread([{name: estimate_s(placed) for name, placed in each.items()} for each in options])
    placed = [each[name] for each, name in zip(options, chosen, strict=True)]
    return [one._replace(race=_race(rule, cluster)) for one, rule in zip(placed, rules, strict=True)]


def _rule(source: YamlFile, cluster: Cluster | None, spec: RunSpec, axes: Sequence[str]) -> Rule:
    if cluster is None:
        return Rule(pool=LOCAL)
    rule = rule_for(axes_of(spec, axes), cluster.section.assign)
    if rule is None:
        words = f"no rule gives {spec.run.id} a pool; end the list with a rule without 'when'"
        raise source.error(("cluster", "assign"), words)
    return rule


def _race(rule: Rule, cluster: Cluster | None) -> tuple[tuple[str, Device], ...]:
    """The pools beside a rule's first one that its runs are sent to as well."""
    if cluster is None or not rule.first:
        return ()
    return tuple((name, cluster.pools[name].device) for name in dict.fromkeys(rule.pools[1:]))


def _train_samples(source: YamlFile, facts: DatasetFacts, spec: RunSpec) -> int:
    """Count the images a run trains on; refuse a subset that cannot be drawn or trained on."""
    run = spec.run
    problem = subset_problem(run.ratio, facts.train_samples, facts.classes)
    train_samples = subset_size(run.ratio, facts.train_samples)
    problem = problem or replica_problem(train_samples, spec.training)
    if problem:
        raise source.error(place_of(source, "ratio", run.ratio), f"{DATASETS[run.dataset].title}: {problem}")
    return train_samples


def _placed(
    cell: Cell,
    pool: str,
    cluster: Cluster | None,
    facts: Mapping[str, DatasetFacts],
    train_samples: int,
) -> PlacedRun:
    dataset = facts[cell.spec.run.dataset]
    return PlacedRun(
        spec=cell.spec,
        pool=pool,
        device=cluster.pools[pool].device if cluster else CPU,
        image_size=dataset.image_size,
        train_samples=train_samples,
        val_samples=dataset.val_samples,
        variant=cell.variant,
    )


def check_rules_used(source: YamlFile, cluster: ClusterSection, specs: Sequence[RunSpec], axes: Sequence[str]) -> None:
    """Refuse a rule that matches no run: it is a typing error or a leftover."""
    for index, rule in enumerate(cluster.assign):
        if not any(rule.matches(axes_of(spec, axes)) for spec in specs):
            raise source.error(
                ("cluster", "assign", index), f"the rule for pool '{', '.join(rule.pools)}' matches no run"
            )
