"""The chapter's own words: how it titles architectures and datasets, orders them, numbers its tables, captions them.

Owns no number of a result. What the chapter does not know keeps its name, comes after what it knows, and is numbered on
from 4.9.
"""

from collections.abc import Iterable, Sequence

from trainer.data.catalog import DATASETS
from trainer.models.catalog import ARCHITECTURES

# Written out as in a caption, where that differs from the title.
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
    """Give an architecture as a heading names it."""
    return ARCHITECTURES[architecture].title if architecture in ARCHITECTURES else architecture


def dataset_title(dataset: str) -> str:
    """Give a dataset as the chapter names it."""
    return DATASETS[dataset].title if dataset in DATASETS else dataset


def in_order(names: Iterable[str], chapter: Sequence[str]) -> list[str]:
    """Put distinct names in the chapter's order, then the others in their own."""
    distinct = list(dict.fromkeys(names))
    return [name for name in chapter if name in distinct] + [name for name in distinct if name not in chapter]


def number_pairs(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Number the table 4.N of each (architecture, dataset), in table order; pairs: in plan order."""
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
    """Caption tables 4.5 and on; variant: "" or the axes beyond the four; seeds: how many."""
    name = ARCHITECTURE_NAMES.get(architecture, architecture_title(architecture))
    caption = (
        f"Best training and validation metrics for different subset ratios of the {dataset_title(dataset)} dataset "
        f"with {name}, evaluated {'across multiple random seeds' if seeds > 1 else 'with one random seed'}, "
        "along with the epoch at which the best metrics were recorded."
    )
    return f"{caption} Variant: {variant}." if variant else caption


def _across(datasets: Sequence[str]) -> str:
    return f"{'across' if len(datasets) > 1 else 'on'} {_of(datasets)}"


def _of(datasets: Sequence[str]) -> str:
    titles = [dataset_title(dataset) for dataset in datasets]
    return f"{_listed(titles)} datasets" if len(titles) > 1 else f"the {titles[0]} dataset"


def _listed(titles: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(titles[:-1]), titles[-1]) if part)
