"""`sweep data`: prepare, draw and describe datasets. Only parses and prints."""

from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.console import err, print_json
from sweep.cli.options import Json
from sweep.errors import InputError
from sweep.words import nearest
from trainer.data.catalog import DATASETS

data_app = typer.Typer(no_args_is_help=True, help="Prepare, draw and describe datasets.")

Dataset = Annotated[str, typer.Argument(help="cifar10 or tinyimagenet")]
DataFolder = Annotated[Path, typer.Option(help="folder that holds the prepared datasets")]


@data_app.command("prepare")
def data_prepare(
    dataset: Dataset,
    source: Annotated[str, typer.Option(help="the official archive, packed or unpacked; a URL; or 'download'")],
    data: DataFolder = Path("data"),
    unofficial: Annotated[
        bool, typer.Option("--unofficial", help="take a source that is not the official archive")
    ] = False,
) -> None:
    """Turn a dataset's archive into the arrays that every run reads."""
    from sweep.cli.progress import bar
    from trainer.data.prepare import prepare

    _known_dataset(dataset)
    manifest, fresh = prepare(dataset, source, data, unofficial=unofficial, report=bar(err))
    what = "prepared" if fresh else "already prepared"
    print(
        f"{data / dataset}: {what}: {manifest.train_samples:,} training and {manifest.val_samples:,} validation "
        f"images, {len(manifest.classes)} classes, fingerprint {manifest.fingerprint[:12]}"
    )


@data_app.command("synthesize")
def data_synthesize(
    dataset: Dataset,
    output: Annotated[Path, typer.Option(help="folder for the archive")],
    train: Annotated[int, typer.Option(min=1, help="training images")] = 1000,
    val: Annotated[int, typer.Option(min=1, help="validation images")] = 200,
    classes: Annotated[int | None, typer.Option(min=2, help="classes, where the layout leaves a choice")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw a small learnable dataset in the official archive's layout."""
    from trainer.data.synthesize import synthesize

    _known_dataset(dataset)
    print(synthesize(dataset, output, train=train, val=val, classes=classes, seed=seed))


@data_app.command("info")
def data_info(
    data: DataFolder = Path("data"),
    json_: Json = False,
    verify: Annotated[bool, typer.Option("--verify", help="read every byte and compare the fingerprint")] = False,
) -> None:
    """Describe the datasets that are prepared."""
    from trainer.data.prepared import read_manifest
    from trainer.data.prepared import verify as verify_data

    found = [manifest for name in DATASETS if (manifest := read_manifest(data, name))]
    if verify:
        for manifest in found:
            verify_data(data, manifest.dataset)
    if json_:
        print_json(datasets=[manifest.model_dump(mode="json") for manifest in found])
        return
    for manifest in found:
        kind = "official" if manifest.official else "synthetic" if manifest.synthetic else "unofficial"
        print(
            f"{manifest.dataset}\t{kind}\t{manifest.train_samples:,} + {manifest.val_samples:,} images\t"
            f"{len(manifest.classes)} classes\t{manifest.fingerprint}"
        )
    if not found:
        err.print(f"{data}: nothing is prepared; see 'sweep data prepare --help'", highlight=False)


def _known_dataset(name: str) -> None:
    if name not in DATASETS:
        raise InputError(f"no dataset '{name}'{nearest(name, DATASETS)}")
