"""A study handed to where people look: CSV, Parquet, TensorBoard, MLflow, Weights & Biases.

Owns which targets there are, and that an export is made of whole files only. What a target's files hold is its
module's; each offers `names(study)`, the files it will write, and `contents(study, folder, tick)`, their bytes in that
order. Nothing of it talks to a network, and a target's packages are imported only when it is asked for.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from analysis.errors import AnalysisError
from analysis.export import csv_files, mlflow_store, parquet_files, tensorboard_events, wandb_runs
from analysis.export.claim import Claim
from analysis.study import Study
from trainer.records.files import write_atomic

Target = Literal["csv", "parquet", "tensorboard", "wandb-offline", "mlflow"]
TARGETS: tuple[Target, ...] = get_args(Target)
Progress = Callable[[int, int], None]


class _Writer(NamedTuple):
    """needs: the packages it imports. extra: what installs them. The functions are as the module's docstring says."""

    needs: tuple[str, ...]
    extra: str
    names: Callable[[Study], list[str]]
    contents: Callable[[Study, Path, Callable[[], None]], Generator[bytes, None, None]]


_WRITERS: dict[Target, _Writer] = {
    "csv": _Writer((), "", csv_files.names, csv_files.contents),
    "parquet": _Writer(("pyarrow",), "parquet", parquet_files.names, parquet_files.contents),
    "tensorboard": _Writer(("tensorboard",), "tensorboard", tensorboard_events.names, tensorboard_events.contents),
    "wandb-offline": _Writer(("wandb",), "wandb", wandb_runs.names, wandb_runs.contents),
    "mlflow": _Writer(("mlflow", "sqlalchemy", "alembic"), "mlflow", mlflow_store.names, mlflow_store.contents),
}


def export(study: Study, to: Target, folder: Path, progress: Progress = lambda done, total: None) -> list[Path]:
    """Write a study's results for a target into a folder, making it; give the paths of the files.

    An earlier export of the same sweep there is replaced; other files stay as they are, and one that is in the way is
    an AnalysisError, as is a package that is not installed. Beside each export lies missing.csv: the planned runs
    without a result, and why. progress: called with (runs done, runs in all). Raises OSError if the disk fails.
    """
    writer = _WRITERS[to]
    _require(to, writer)
    total = len(study.results)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    names = [csv_files.MISSING, *writer.names(study)]
    claim = Claim.of(folder, study.name, to, names)
    paths = [folder / name for name in names]
    progress(0, total)
    # Closed also when the disk fails: wandb and mlflow are switched on while it is open.
    with closing(writer.contents(study, folder, tick)) as contents:
        for path, content in zip(paths, chain([csv_files.missing(study)], contents), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
    claim.settle()
    return paths


def _require(to: str, writer: _Writer) -> None:
    absent = [package for package in writer.needs if find_spec(package) is None]
    if absent:
        install = f"install it in sweep's own folder: pip install '.[{writer.extra}]'"
        raise AnalysisError(f"export to {to} needs {' and '.join(absent)}; {install}")
