"""A pool's tasks run in its container, which sees the sweep's folders and the code that was submitted."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stand_in_apptainer
from pydantic import ValidationError

from slurm.container import launched, seeing, unmountable
from slurm.jobs import ArrayRecord, Resources
from slurm.pools import Pool
from slurm.probe import mark, read_findings
from slurm.submission import resources, script
from sweep.status.folder import SweepFolder

IMAGE = "/images/torch.sif"


def asked(device: str = "cpu", folders: tuple[str, ...] = ("/runs", "/data"), **keys: Any) -> Resources:
    pool = Pool.model_validate({"device": device, "container": {"image": IMAGE, **keys}})
    return seeing(resources(pool, 1), [Path(folder) for folder in folders])


def command(wanted: Resources, tmp_path: Path) -> list[str]:
    """The words of the line that starts a job's task."""
    array = ArrayRecord(tag="study.a-1.0", pool="p", resources=wanted, tasks=[["run"]])
    text = script(array, tmp_path, tmp_path / "bundle.json", max_parallel=None)
    return shlex.split(text.splitlines()[-1])


def test_apptainer_is_given_the_folders_the_code_and_the_driver(tmp_path: Path) -> None:
    """Around the task alone, with the image's Python; the driver where the pool has a GPU."""
    words = command(asked("v100", bind=["/scratch", "/a:/b:ro"], python="/opt/python"), tmp_path)
    at = words.index("apptainer")
    assert words[at : at + 4] == ["apptainer", "exec", "--nv", "--bind"]
    code = Path(__file__).parents[2]
    assert words[at + 4].split(",") == [
        "/scratch:/scratch", "/a:/b:ro", "/runs:/runs", "/data:/data",
        f"{code}/slurm:/sweep/slurm:ro", f"{code}/trainer:/sweep/trainer:ro",
    ]  # fmt: skip
    inside = [IMAGE, "env", "PYTHONPATH=/sweep", "/opt/python", "-u", "-m", "slurm.task"]
    assert words[at + 5 :] == [*inside, str(tmp_path / "bundle.json")]
    assert "--nv" not in command(asked(), tmp_path)


def test_pyxis_is_asked_of_srun(tmp_path: Path) -> None:
    """It is a part of srun, and knows the driver by itself."""
    words = command(asked("v100", runtime="pyxis"), tmp_path)
    assert f"--container-image={IMAGE}" in words[: words.index("sh")]
    [mounts] = [word for word in words[: words.index("sh")] if word.startswith("--container-mounts=")]
    assert mounts.startswith("--container-mounts=/runs:/runs,/data:/data,")
    assert words[words.index("env") :][:3] == ["env", "PYTHONPATH=/sweep", "python3"]


def test_without_a_container_a_task_is_started_as_ever(tmp_path: Path) -> None:
    wanted = seeing(resources(Pool(device="v100"), 1), [Path("/runs")])
    assert wanted.container is None
    assert command(wanted, tmp_path)[-5:-1] == [sys.executable, "-u", "-m", "slurm.task"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"image": ""}, "give a name or a path without spaces, such as '/path/to/image.sif'"),
        ({"image": "--writable"}, "give a name or a path without spaces"),
        ({"python": "python3 -E"}, "such as '/opt/python/bin/python3'"),
        ({"bind": ["scratch"]}, "'scratch' is no '/folder', '/folder:/inside' or '/folder:/inside:ro'"),
        ({"bind": ["/a,/b"]}, "'/a,/b' is no '/folder'"),
        ({"runtime": "docker"}, "Input should be 'apptainer' or 'pyxis'"),
        ({"nv": True}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_no_container_is_refused(keys: dict[str, Any], words: str) -> None:
    """In one sentence, with what is meant."""
    with pytest.raises(ValidationError, match=words.replace("'", ".")):
        asked(**keys)


def test_a_job_sees_its_folders_by_every_name_it_has_for_them(tmp_path: Path) -> None:
    """A link to scratch is followed by some and not by others; what lies within another is not named twice."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "runs").symlink_to(scratch)
    folders = SweepFolder(tmp_path / "runs" / "study").seen_by_jobs(tmp_path / "data")
    assert folders == [tmp_path / "runs" / "study", scratch / "study", tmp_path / "data"]
    assert [unmountable(folder) for folder in folders] == [None, None, None]
    assert "choose another folder" in (unmountable(Path("/a,b")) or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the root of a process")
def test_what_is_not_bound_is_not_there(tmp_path: Path) -> None:
    """The probe inside finds the sweep's folder and its own code, and misses the data that nobody bound."""
    stand_in_apptainer.write(tmp_path)
    image = tmp_path / "image"
    image.write_text(f"{sys.base_prefix} /usr /bin /lib /lib64")
    runs, data = tmp_path / "runs", tmp_path / "data"
    for folder in (runs, data):
        folder.mkdir()
    mark(runs, "n").touch()
    python = f"{sys.base_prefix}/bin/python3"
    wanted = asked(folders=(str(runs),), image=str(image), python=python)
    looking = launched(wanted.container, "slurm.probe", "--folder", str(runs), "--data", str(data), "--nonce", "n")
    shell = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "APPTAINER_CLEANENV": "1", "SLURMD_NODENAME": "node-7"}
    done = subprocess.run(looking, capture_output=True, text=True, env=shell, timeout=60)
    found = read_findings(done.stdout, "n")
    assert found is not None, done.stderr
    assert (found.folder, found.writable, found.data) == (True, True, False)
    assert found.node == "node-7", "Slurm's variables are seen, whatever the shell asks of Apptainer"
