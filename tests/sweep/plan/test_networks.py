"""Networks by reference in the plan: measured once, priced by what they compute, refused before anything starts."""

import json
from pathlib import Path
from typing import Any

import pytest
from networks import REFERENCE, put_networks

from sweep.config.load import load_sweep
from sweep.config.operations import START_S
from sweep.config.schema import Sweep
from sweep.errors import InputError
from sweep.plan import networks
from sweep.plan.cost import OPERATIONS, CostModel
from sweep.plan.memory import needs
from sweep.plan.networks import with_networks
from trainer.models.measured import Asked, Measured

MEASURED = Measured(parameters=1000, forward_macs=3.7e9, step_bytes=64e6, evaluation_bytes=1e6)


class Answers:
    """Stands for the process that imports networks."""

    def __init__(self) -> None:
        self.answer = MEASURED
        self.asked: list[Asked] = []

    def __call__(self, asked: list[Asked], modules: object) -> list[Measured]:
        self.asked += asked
        return [self.answer] * len(asked)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Answers:
    found = Answers()
    monkeypatch.setattr(networks, "_ask", found)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


def load(folder: Path, **more: Any) -> Sweep:
    put_networks(folder)
    cluster = {"name": "c", "pools": {"gpu": {"device": "h100", "gres": "gpu:1", "gpu_memory_gb": 80}}}
    (folder / "cluster.yaml").write_text(json.dumps(cluster))
    grid = {
        "architecture": [REFERENCE, "resnet18"],
        "dataset": ["cifar10", "tinyimagenet"],
        "ratio": [1.0],
        "seed": [1],
    }
    content = {"name": "s", "grid": grid, "cluster": {"file": "./cluster.yaml", "assign": [{"pool": "gpu"}]}, **more}
    path = folder / "study.yaml"
    path.write_text(json.dumps({**content, "data": str(folder / "data")}))
    return load_sweep(path)


def test_a_network_is_asked_of_once_until_its_code_changes(answers: Answers, tmp_path: Path) -> None:
    """Once a dataset; a damaged answer is none; and a sweep of the study's networks asks nothing."""
    said: list[str] = []
    sweep = load(tmp_path)
    with_networks(sweep, said.append)
    assert [(one.classes, one.image_size) for one in answers.asked] == [(10, 32), (200, 64)]
    assert said == [f"measuring {REFERENCE}"]
    with_networks(sweep, said.append)
    assert len(answers.asked) == 2
    next((tmp_path / "cache").rglob("*.json")).write_text("{")
    with_networks(sweep, said.append)
    assert len(answers.asked) == 3
    with (tmp_path / "networks.py").open("a") as file:
        file.write("# edited\n")
    with_networks(sweep, said.append)
    assert len(answers.asked) == 5
    own = sweep._replace(runs=[run for run in sweep.runs if run.spec.run.architecture == "resnet18"])
    assert with_networks(own, said.append) is own


def test_estimates_and_memory_follow_what_was_measured(answers: Answers, tmp_path: Path) -> None:
    """100 times ResNet-18's operations; one replica's activations at a time."""
    unknown = load(tmp_path)
    known = with_networks(unknown, lambda line: None)
    mine, resnet = (next(one for one in known.runs if one.id.startswith(name)) for name in ("small-c", "resnet18-c"))
    model = CostModel(networks=known.networks)
    assert model.estimate(mine).basis == OPERATIONS
    ours, theirs = (model.estimate(one).seconds - START_S for one in (resnet, mine))
    assert theirs == pytest.approx(100 * ours)
    (before,), (after,) = (list(needs(sweep, [mine])) for sweep in (unknown, known))
    assert after.gibs[0] - before.gibs[0] == pytest.approx((128 * 64e6 + 128 * 1e6) / 2**30, rel=0.05)
    answers.answer = MEASURED._replace(step_bytes=1e9)
    (tmp_path / "networks.py").write_text((tmp_path / "networks.py").read_text() + "# larger\n")
    (need,) = needs(with_networks(unknown, lambda line: None), [mine])
    assert need.problem
    assert "needs about" in need.problem[0]


def test_a_network_that_cannot_be_trained_is_refused_with_its_line(answers: Answers, tmp_path: Path) -> None:
    """And is not remembered: what is mended outside its module would not be seen."""
    answers.answer = Measured(problem="networks.py:3: RuntimeError: out of ideas")
    sweep = load(tmp_path)
    for times in (1, 2):
        with pytest.raises(
            InputError, match=r"study.yaml:1: .*with images of 32×32 and 10 classes: networks.py:3: Runt"
        ):
            with_networks(sweep, lambda line: None)
        assert len(answers.asked) == 2 * times


def test_where_torch_is_not_installed_nothing_is_asked(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a login node whose jobs run in containers: it is said, and the sweep is planned as it can be."""
    monkeypatch.setattr("sweep.plan.networks.is_installed", lambda name: False)
    said: list[str] = []
    sweep = load(tmp_path)
    assert with_networks(sweep, said.append).networks == {}
    assert said == [f"not measured, for torch or the network's module is not installed here: {REFERENCE}"]
    assert answers.asked == []


@pytest.mark.slow
def test_a_module_that_ends_its_process_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sweep = load(tmp_path)
    (tmp_path / "networks.py").write_text("import sys\nsys.exit('no licence')\n\n\ndef small(): ...\n")
    with pytest.raises(InputError, match="networks:small: the process that imported it ended: no licence"):
        with_networks(sweep, lambda line: None)
