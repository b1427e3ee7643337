"""CSV, Markdown and LaTeX: any text survives, any reader takes them."""

import re
import subprocess
from pathlib import Path

import pandas
import pytest
from conftest import program
from result_fixtures import PAIRS, planned_grid, write_grid, write_planned
from table_reading import read_markdown

from analysis.formats import Table, escape_latex, escape_markdown, to_latex, to_markdown
from trainer.records.recipe import Recipe

SHORT = Recipe(epochs=4)
PAIR = PAIRS[:1]
TEXT = r"100% of #3: a_b \dir {x} $HOME & ~/foo^2 <class 'OSError'> | `ls` --yes --- [1](2) *é* “µ” → 手"


def test_the_csv_files_read_as_data(tmp_path: Path) -> None:
    """pandas reads header and rows, numbers as numbers, with nothing to skip."""
    planned = planned_grid(PAIR, [0.1, 1.0], [42, 43], training=SHORT)
    write_grid(tmp_path, planned, planned[0].run.id)
    write_planned(tmp_path, planned, {})
    table = pandas.read_csv(tmp_path / "tables" / "table-4.5.csv", index_col=0)
    assert table.shape == (16, 2)
    assert table.loc["Val Acc (S43)", "1.0"] == 0.81
    assert table.loc["Val Acc (S42)", "0.1"] == float("-inf")
    assert table["0.1"].isna()["Epoch (Val Acc) (S42)"]
    assert (table.dtypes == "float64").all()
    parameters = pandas.read_csv(tmp_path / "tables" / "table-4.1.csv", thousands=",", index_col=0)
    assert parameters.loc["CIFAR-10", "ResNet-18 Parameters"] == 11_181_642


def test_markdown_shows_any_text_as_it_is() -> None:
    """No text turns into markup, HTML, a link or another cell, in the table or under it."""
    for text in (TEXT, "_init_ and host_oom", "a | b", "~~x~~", "&lt;", "![x](y)", "<b>x</b>"):
        table = Table("table-9", "9", text, ("a", text), ((text, text), ("", "")), (text,))
        assert read_markdown(to_markdown(table)) == ([["a", text], [text, text], ["", ""]], [f"Table 9. {text}", text])
    assert escape_markdown("failed (host_oom) on v100-1") == "failed (host_oom) on v100-1"


def test_latex_specials_are_escaped() -> None:
    """Each character that LaTeX would act on is printed instead; options keep their two hyphens."""
    assert escape_latex(r"a_b 5% #1 \x {y}") == r"a\_b 5\% \#1 \textbackslash{}x \{y\}"
    assert escape_latex("$ & ~ ^") == r"\$ \& \textasciitilde{} \textasciicircum{}"
    assert escape_latex("<a|b> --yes") == r"\textless{}a\textbar{}b\textgreater{} -{}-yes"
    assert escape_latex("é 手\x1b") == r"é \texttt{U+624B} "
    table = to_latex(Table("table-9-a b", "9", "c", ("[1]", "x"), (("*", "y"),)))
    assert "\n{}[1] & x \\\\\n" in table
    assert "\n{}* & y \\\\\n" in table
    assert r"\label{tab:9-a-b}" in table


@pytest.mark.slow
def test_pdflatex_compiles_every_table_whatever_the_reason(tmp_path: Path) -> None:
    r"""All tables \input into an article with the packages that they name compile, and none is wider than the text."""
    planned = planned_grid(training=SHORT)
    missing = {run.run.id: f"{TEXT} {position}" for position, run in enumerate(planned) if position % 17 == 0}
    write_grid(tmp_path, planned, *missing)
    paths = [path for path in write_planned(tmp_path, planned, missing) if path.suffix == ".tex"]
    packages = set(re.findall(r"\\usepackage\{\w+\}", "".join(path.read_text() for path in paths)))
    body = "\n".join(rf"\input{{tables/{path.name}}}" for path in paths)
    document = rf"\documentclass{{article}}{''.join(sorted(packages))}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "all.tex").write_text(document)
    # A draft needs no font files, which small installations lack.
    command = [
        program("pdflatex", "texlive-latex-recommended"),
        "-draftmode",
        "-halt-on-error",
        "-interaction=nonstopmode",
        "all.tex",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "all.log").read_text(errors="replace")
    assert "Missing character" not in log
    assert [line for line in log.splitlines() if line.startswith("Overfull \\hbox")] == []
