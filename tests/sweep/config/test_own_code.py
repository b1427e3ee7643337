"""A user's own modules: found in the project, checked without being imported, and told by name in run ids."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweep.config.load import load_sweep
from sweep.config.own_code import own_code, project_of
from sweep.errors import InputError

NETS = "import torch\nfrom os import path as place\n\nWIDTH = 3\n\n\ndef convnext(classes): ...\n\n\nclass Mixer: ...\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a package, a module, and a sweep file in a folder of its own."""
    folder = tmp_path / "a project"
    (folder / "mylab" / "vision").mkdir(parents=True)
    (folder / "studies").mkdir()
    (folder / "pyproject.toml").write_text("")
    (folder / "mylab" / "models.py").write_text(NETS)
    (folder / "mylab" / "vision" / "__init__.py").write_text(NETS)
    (folder / "nets.py").write_text(NETS)
    return folder


def sweep_file(project: Path, *architectures: str, **more: Any) -> Path:
    grid = {"architecture": list(architectures), "dataset": ["cifar10"], "ratio": [0.1], "seed": [1]}
    path = project / "studies" / "study.yaml"
    path.write_text(json.dumps({"name": "study", "grid": grid, **more}))
    return path


def found(project: Path, *architectures: str, **more: Any) -> list[str]:
    modules = own_code(load_sweep(sweep_file(project, *architectures, **more)))
    return [module.relative_to(project).as_posix() for module in modules]


def test_a_project_is_the_nearest_folder_with_a_mark_or_the_files_own(project: Path, tmp_path: Path) -> None:
    assert project_of(project / "studies" / "study.yaml") == project
    (project / "studies" / ".git").write_text("gitdir: elsewhere\n")
    assert project_of(project / "studies" / "study.yaml") == project / "studies"
    assert project_of(tmp_path / "alone.yaml") == tmp_path


def test_what_jobs_import_is_the_top_module_of_each_reference(project: Path) -> None:
    """Of the project, and what `code` adds to it; the study's own networks need none, and what is installed neither."""
    assert found(project, "resnet18", "vit") == []
    assert found(project, "json:loads", "torchvision:resnet34") == []
    assert found(project, "mylab.models:convnext", "mylab.vision:Mixer", "resnet18") == ["mylab"]
    assert found(project, "nets:convnext", "mylab.models:Mixer") == ["mylab", "nets.py"]
    assert found(project, "nets:WIDTH", code=["mylab"]) == ["mylab", "nets.py"]
    assert found(project, "resnet18", code=["nets"]) == ["nets.py"]


def test_a_module_is_found_in_src_too(project: Path) -> None:
    (project / "src").mkdir()
    (project / "mylab").rename(project / "src" / "mylab")
    assert found(project, "mylab.models:convnext") == ["src/mylab"]


def test_a_module_beside_a_folder_of_its_name_is_the_one_python_takes(project: Path) -> None:
    """A folder of results called as the module, and one called as a library."""
    for name in ("nets", "torchvision", "mylab/models"):
        (project / name).mkdir()
    assert found(project, "nets:convnext", "torchvision:resnet34") == ["nets.py"]
    assert found(project, "mylab.models:convnext") == ["mylab"]
    (project / "nets" / "__init__.py").write_text(NETS)
    assert found(project, "nets:convnext") == ["nets"]


def test_a_name_that_only_running_the_module_would_tell_is_left_to_the_run(project: Path) -> None:
    for more in ("from json import *\n", "if WIDTH:\n    Late = 3\n", "def __getattr__(name): ...\n"):
        (project / "nets.py").write_text(NETS + more)
        assert found(project, "nets:Late") == ["nets.py"]


def test_runs_are_called_by_the_functions_name(project: Path) -> None:
    runs = load_sweep(sweep_file(project, "mylab.models:convnext", "resnet18")).runs
    assert [run.id for run in runs] == ["convnext-cifar10-r0.1-s1", "resnet18-cifar10-r0.1-s1"]


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("mylab.modles:convnext", "mylab/modles.py"),
        ("mylab.models:convnxt", "models.py has no 'convnxt'; did you mean 'convnext'?"),
        ("mylab.vision:Mixxer", "__init__.py has no 'Mixxer'; did you mean 'Mixer'?"),
        ("nowhere_at_all:net", "no module 'nowhere_at_all' in "),
        ("__main__:net", "'__main__' is part of this program"),
        ("trainer.models.vit:VisionTransformer", "'trainer' is part of this program"),
    ],
)
def test_a_reference_to_nothing_is_refused_before_anything_starts(project: Path, architecture: str, words: str) -> None:
    """With its line, and the nearest name."""
    sweep = load_sweep(sweep_file(project, "resnet18", architecture))
    with pytest.raises(InputError, match=r"study.yaml:1: 'grid.architecture' holds ") as error:
        own_code(sweep)
    assert words in str(error.value)


def test_a_module_of_a_container_is_not_looked_for_here(project: Path) -> None:
    """What the jobs' image has installed, nobody knows here."""
    pool = {"device": "cpu", "container": {"image": "/images/lab.sif", "runtime": "apptainer"}}
    (project / "studies" / "cluster.yaml").write_text(json.dumps({"name": "c", "pools": {"one": pool}}))
    cluster = {"file": "./cluster.yaml", "assign": [{"pool": "one"}]}
    assert found(project, "nowhere_at_all:net", cluster=cluster) == []


def test_a_module_that_is_no_python_is_refused_with_its_line(project: Path) -> None:
    (project / "nets.py").write_text("def net(:\n")
    sweep = load_sweep(sweep_file(project, "nets:net"))
    with pytest.raises(InputError, match=r"nets.py:1 cannot be read as Python: invalid syntax"):
        own_code(sweep)


@pytest.mark.parametrize("name", ["mylab.models", "../mylab", "trainer", "modles"])
def test_code_that_is_no_module_of_the_project_is_refused(project: Path, name: str) -> None:
    sweep = load_sweep(sweep_file(project, "resnet18", code=[name]))
    with pytest.raises(InputError, match=f"'code' holds '{name}'"):
        own_code(sweep)


@pytest.mark.parametrize(
    ("architectures", "words"),
    [
        (["resnet19"], "'resnet19': no such architecture; did you mean 'resnet18'?"),
        (["mylab/models:net"], "expected resnet18, vit, or one of yours as 'module:function'"),
        (["mylab.models:"], "expected resnet18, vit, or one of yours as 'module:function'"),
        (["nets:Mixer", "mylab.models:Mixer"], "and run ids would call both 'Mixer'; give one of them another name"),
        (["vit", "nets:vit"], "and run ids would call both 'vit'; give one of them another name"),
    ],
)
def test_an_architecture_that_names_nothing_or_two_things_is_refused(
    project: Path, architectures: list[str], words: str
) -> None:
    with pytest.raises(InputError) as error:
        load_sweep(sweep_file(project, *architectures))
    assert words in str(error.value)
