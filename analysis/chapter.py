"""The chapter's titles, order, numbers and captions of tables and figures.

Holds no results. Architectures and datasets that the thesis does not have keep their names and come after its own;
their tables are numbered from 4.9, their figures from 4.18.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from trainer.data.catalog import DATASETS
from trainer.models.catalog import ARCHITECTURES, short_name

# As written in captions, where that differs from the title.
ARCHITECTURE_NAMES: dict[str, str] = {"vit": "Vision Transformer"}

# Table 4.1 lists CIFAR-10 first, tables 4.2 and 4.3 list TinyImageNet first.
PARAMETER_COLUMNS: tuple[str, ...] = ("vit", "resnet18")
PARAMETER_ROWS: tuple[str, ...] = ("cifar10", "tinyimagenet")
DATASET_ROWS: tuple[str, ...] = ("tinyimagenet", "cifar10")

METRIC_TABLES: dict[tuple[str, str], int] = {
    ("resnet18", "cifar10"): 5,
    ("vit", "cifar10"): 6,
    ("resnet18", "tinyimagenet"): 7,
    ("vit", "tinyimagenet"): 8,
}
FIRST_FREE_TABLE = 9


def architecture_title(architecture: str) -> str:
    return ARCHITECTURES[architecture].title if architecture in ARCHITECTURES else short_name(architecture)


def dataset_title(dataset: str) -> str:
    return DATASETS[dataset].title if dataset in DATASETS else dataset


def in_order(names: Iterable[str], chapter: Sequence[str]) -> list[str]:
    """List distinct names: those of the chapter in its order, then the others as they first occur."""
    distinct = list(dict.fromkeys(names))
    return [name for name in chapter if name in distinct] + [name for name in distinct if name not in chapter]


def number_pairs(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Return the N of table 4.N by (architecture, dataset), in table order; pairs: in plan order."""
    distinct = list(dict.fromkeys(pairs))
    own = [pair for pair in distinct if pair not in METRIC_TABLES]
    numbers = METRIC_TABLES | {pair: FIRST_FREE_TABLE + position for position, pair in enumerate(own)}
    return {pair: numbers[pair] for pair in sorted(distinct, key=numbers.__getitem__)}


def parameters_caption(architectures: Sequence[str], datasets: Sequence[str]) -> str:
    """Caption table 4.1."""
    models = _listed([architecture_title(architecture) for architecture in architectures])
    return f"Number of trainable parameters for {models} models {_across(datasets)}."


def samples_caption(datasets: Sequence[str]) -> str:
    """Caption table 4.2."""
    return f"Training sample sizes for different subset ratios of {_of(datasets)}."


def normalization_caption(datasets: Sequence[str]) -> str:
    """Caption table 4.3."""
    return f"Normalization parameters used for {_of(datasets)}."


def hardware_caption() -> str:
    """Caption table 4.4."""
    return (
        "Hardware configurations used for the training experiments. The seed values represent unique training runs, "
        "while the CPUs and GPUs denote the corresponding hardware configuration for each run."
    )


def metrics_caption(architecture: str, dataset: str, variant: str, seeds: int) -> str:
    """Caption table 4.5 or a later one. variant: "" or the axes beyond the four; seeds: how many."""
    name = ARCHITECTURE_NAMES.get(architecture, architecture_title(architecture))
    caption = (
        f"Best training and validation metrics for different subset ratios of the {dataset_title(dataset)} dataset "
        f"with {name}, evaluated {'across multiple random seeds' if seeds > 1 else 'with one random seed'}, "
        "along with the epoch at which the best metrics were recorded."
    )
    return f"{caption} Variant: {variant}." if variant else caption


def means_caption(architecture: str, dataset: str, variant: str, seeds: int) -> str:
    """Caption the means of a metrics table; arguments as for metrics_caption."""
    caption = (
        f"Mean and sample standard deviation over {f'{seeds} random seeds' if seeds > 1 else 'one random seed'} of the "
        f"best training and validation metrics of {architecture_title(architecture)} on {dataset_title(dataset)}, for "
        "different subset ratios."
    )
    return f"{caption} Variant: {variant}." if variant else caption


def _across(datasets: Sequence[str]) -> str:
    return f"{'across' if len(datasets) > 1 else 'on'} {_of(datasets)}"


def _of(datasets: Sequence[str]) -> str:
    titles = [dataset_title(dataset) for dataset in datasets]
    return f"{_listed(titles)} datasets" if len(titles) > 1 else f"the {titles[0]} dataset"


def _listed(titles: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(titles[:-1]), titles[-1]) if part)


# The surface of each pair; its validation and training curves are the next two figures.
PAIR_FIGURES: dict[tuple[str, str], int] = {
    ("resnet18", "cifar10"): 2,
    ("vit", "cifar10"): 5,
    ("resnet18", "tinyimagenet"): 8,
    ("vit", "tinyimagenet"): 11,
}
SIDE_BY_SIDE_FIGURES: dict[str, int] = {"cifar10": 14, "tinyimagenet": 15}
SCALING_FIGURES: dict[str, int] = {"cifar10": 16, "tinyimagenet": 17}
FIRST_FREE_FIGURE = 18
ARCHITECTURE_ORDER: tuple[str, ...] = ("resnet18", "vit")


class FigureNumbers(NamedTuple):
    """The N of each figure 4.N. pairs: the surfaces. side_by_side: only datasets with several architectures."""

    pairs: dict[tuple[str, str], int]
    side_by_side: dict[str, int]
    scaling: dict[str, int]


def number_figures(pairs: Iterable[tuple[str, str]]) -> FigureNumbers:
    """Number the figures after 4.1, which shows all pairs; those that the thesis does not have from 4.18.

    pairs: (architecture, dataset), in plan order. The numbers depend on the plan alone, not on what has finished.
    """
    distinct = list(dict.fromkeys(pairs))
    datasets = list(dict.fromkeys(dataset for _, dataset in distinct))
    compared = [name for name in datasets if sum(dataset == name for _, dataset in distinct) > 1]
    free = FIRST_FREE_FIGURE
    numbers = FigureNumbers({}, {}, {})
    for pair in distinct:
        numbers.pairs[pair] = PAIR_FIGURES.get(pair, free)
        free += 0 if pair in PAIR_FIGURES else 3
    for names, known, numbered in (
        (compared, SIDE_BY_SIDE_FIGURES, numbers.side_by_side),
        (datasets, SCALING_FIGURES, numbers.scaling),
    ):
        for name in names:
            numbered[name] = known.get(name, free)
            free += 0 if name in known else 1
    return numbers


def training_time_caption(datasets: Sequence[str], variant: str) -> str:
    """Caption figure 4.1; datasets: its panels from top to bottom."""
    caption = "Training time as a function of dataset ratio for each architecture/dataset combination."
    titles = [dataset_title(dataset) for dataset in datasets]
    if len(titles) == 2:
        caption += f" Upper is {titles[0]}, lower is {titles[1]}."
    elif len(titles) > 2:
        caption += f" From top to bottom: {', '.join(titles)}."
    return _with_variant(caption, variant)


def surface_caption(architecture: str, dataset: str, variant: str) -> str:
    """Caption the surfaces: figures 4.2, 4.5, 4.8, 4.11 and their like."""
    name = ARCHITECTURE_NAMES.get(architecture, architecture_title(architecture))
    return _with_variant(
        f"Surface plot of training and validation accuracy and loss of {name} on {dataset_title(dataset)} across "
        "different dataset subset sizes.",
        variant,
    )


def curves_caption(architecture: str, dataset: str, variant: str, phase: str) -> str:
    """Caption the curves; phase: "validation" or "training"."""
    return _with_variant(
        f"Two-dimensional plot of {phase} accuracy and loss of {architecture_title(architecture)} on "
        f"{dataset_title(dataset)} across different dataset subset sizes.",
        variant,
    )


def side_by_side_caption(architectures: Sequence[str], dataset: str, variant: str) -> str:
    """Caption figures 4.14 and 4.15."""
    return _with_variant(
        f"Validation accuracy and loss of {_listed([architecture_title(name) for name in architectures])} trained on "
        f"identical data of {dataset_title(dataset)}, at selected dataset ratios.",
        variant,
    )


def scaling_caption(architectures: Sequence[str], dataset: str, variant: str) -> str:
    """Caption figures 4.16 and 4.17."""
    titles = [architecture_title(name) for name in architectures]
    caption = (
        f"Best validation accuracy and loss of {_listed(titles)} against the number of training images of "
        f"{dataset_title(dataset)}, with fitted data-scaling curves and their 95 % intervals."
    )
    if len(titles) > 1:
        others = _listed(titles[1:])
        caption += f" Below: the images that {others} needs for the same value, as a multiple of {titles[0]}'s."
    return _with_variant(caption, variant)


def _with_variant(caption: str, variant: str) -> str:
    return f"{caption} Variant: {variant}." if variant else caption
