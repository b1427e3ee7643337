"""docs/notebook.md does what it says: its code runs, and its tables name what there is."""

import json
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY
from result_fixtures import SEEDS, make_result, planned_grid, planned_run, write_grid, write_result

from analysis.export import TARGETS
from analysis.load import COLUMNS, HISTORY_COLUMNS
from trainer.records.recipe import Recipe

TEXT = (REPOSITORY / "docs" / "notebook.md").read_text()
SHORT = Recipe(epochs=4)
PLAN = planned_grid([("resnet18", "cifar10"), ("vit", "cifar10")], [0.1, 1.0], training=SHORT)


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_every_block_of_code_runs_in_the_order_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one session, as a reader would, beside a sweep of the thesis's shape; what it shows is right."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "thesis"
    write_grid(folder, PLAN)
    grid = {"architecture": ["resnet18", "vit"], "dataset": ["cifar10"], "ratio": [0.1, 1.0], "seed": SEEDS}
    (tmp_path / "configs").mkdir()
    file = {"name": "thesis", "grid": grid, "training": {"epochs": SHORT.epochs}}
    (tmp_path / "configs" / "thesis.yaml").write_text(json.dumps(file))
    write_result(tmp_path / "runs" / "longer", make_result(PLAN[0], {"val_accuracy": (0.91, 3)}))
    session: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == TEXT.count("```python") == 6
    for block in blocks:
        exec(compile(block, "docs/notebook.md", "exec"), session)  # noqa: S102  the page's own code
    frame, history, cells, run, both = (session[name] for name in ("frame", "history", "cells", "run", "both"))
    assert (len(frame), len(history)) == (len(PLAN), len(PLAN) * SHORT.epochs)  # type: ignore[arg-type]
    assert cells["count"].tolist() == [3] * 4  # type: ignore[index]
    assert cells["std"].tolist() == pytest.approx([0] * 4, abs=1e-12)  # type: ignore[index]
    assert len(run) == SHORT.epochs  # type: ignore[arg-type]
    assert both["gain"].tolist() == pytest.approx([0.91 - 0.81])  # type: ignore[index]
    assert f"{len(PLAN) - 1} runs only in the first" in capsys.readouterr().out
    assert {path.name for path in (folder / "export" / "csv").glob("*.csv")} == {
        "missing.csv",
        "runs.csv",
        "history.csv",
    }
    from matplotlib import pyplot

    pyplot.close("all")


def test_the_tables_name_every_column_and_target_and_no_other() -> None:
    """A column nobody explains is of no use, and one that is gone misleads."""

    def named(rows: list[str]) -> list[str]:
        return [name for row in rows for name in re.findall(r"`(\w[\w-]*)`", row.split("|")[1])]

    runs, history, targets = (
        [line for line in table.splitlines()[2:] if line.startswith("|")]
        for table in re.findall(r"\n((?:\|.*\n)+)", TEXT)
    )
    assert sorted(named(runs)) == sorted(COLUMNS)
    assert sorted(named(history)) == sorted(HISTORY_COLUMNS)
    assert named(targets) == list(TARGETS)


def test_the_run_the_page_names_is_called_so() -> None:
    """Names of runs are a contract: a reader copies this one."""
    assert planned_run(ratio=0.1).run.id in TEXT
