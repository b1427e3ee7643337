"""The private cluster's folder: its settings, files, keys and devices. Starts no daemon."""

import os
import random
import secrets
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from slurm.private_cluster.config import NODES, PORTS, gres_conf, slurm_conf, slurmdbd_conf
from slurm.private_cluster.daemons import install_database, missing_packages
from trainer.records.base import Versioned
from trainer.records.files import RecordError, read_json, write_json

PRIVATE = 0o700
GPUS = 4
# Below the kernel's ephemeral ports (32768 and up), so that no outgoing connection takes one.
PORT_RANGE = range(20000, 32000)
Ask = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


class HomeError(Exception):
    """A cluster cannot be started, stopped or queried; the message says what to do."""


class Made(Versioned):
    """cluster.json: the settings of the cluster. Ports change at a start if others have taken them."""

    accounting: bool
    ports: dict[str, int]
    password: str
    extra: list[str] = []


def refuse_machine(*, accounting: bool = True) -> str | None:
    """Return why this machine cannot run a cluster, as a sentence; None if it can."""
    packages = missing_packages(accounting=accounting)
    if packages:
        return f"Slurm is not installed here; as root: apt-get install {' '.join(packages)}"
    if os.geteuid() != 0:
        return (
            "a private cluster needs root: its stand-in GPUs are device files (mknod), and slurmctld and slurmd start "
            "jobs for others; call this with sudo, or in a container where you are root"
        )
    return None


def read_made(folder: Path) -> Made | None:
    """Read the settings of a folder; None before its first start. Raises HomeError."""
    try:
        return read_json(folder / "cluster.json", Made)
    except RecordError as error:
        raise HomeError(str(error)) from error


def make_folder(folder: Path) -> None:
    """Create the folder or take an empty one, accessible to the user only. Raises HomeError."""
    try:
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
        if "cluster.json" not in names and names - {"lock"}:
            raise HomeError(f"{folder}: has other files in it; name an empty or a new folder")
        folder.chmod(PRIVATE)
    except OSError as error:
        raise HomeError(f"{folder}: cannot be used as a folder: {error.strerror}") from error


def decide(folder: Path, accounting: bool | None, extra: Sequence[str] | None, *, keep_ports: bool) -> Made:
    """Update and save the settings of a cluster; None keeps a setting. Raises HomeError."""
    made = read_made(folder)
    if made is None:
        made = Made(accounting=accounting is not False, ports=free_ports(), password=secrets.token_hex(16))
    elif accounting not in (None, made.accounting):
        kind = "with" if made.accounting else "without"
        raise HomeError(f"{folder}: was made {kind} accounting, which cannot change; name another folder")
    elif not keep_ports:
        made = made.model_copy(update={"ports": free_ports(made.ports)})
    if extra is not None:
        made = made.model_copy(update={"extra": list(extra)})
    write_json(folder / "cluster.json", made)
    return made


def write_configuration(folder: Path, made: Made) -> None:
    """Write Slurm's files, and the shell snippet that selects them."""
    for name in ("etc", "log", "run", "spool", "gpu", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(mode=PRIVATE, exist_ok=True)
    etc = folder / "etc"
    (etc / "slurm.conf").write_text(slurm_conf(folder, made.ports, accounting=made.accounting, extra=made.extra))
    (etc / "gres.conf").write_text(gres_conf(folder))
    if made.accounting:
        _write_private(etc / "slurmdbd.conf", slurmdbd_conf(folder, made.ports, made.password).encode(), 0o600)
    (folder / "activate").write_text(f"export SLURM_CONF={etc}/slurm.conf\n")


def prepare(folder: Path, made: Made, ask: Ask) -> None:
    """Create the key, the stand-in GPUs and, in a new cluster, the empty state and database. Raises HomeError."""
    key = folder / "etc" / "munge.key"
    if not key.exists():
        _write_private(key, secrets.token_bytes(128), 0o400)
    for index in range(GPUS):
        _make_device(folder / "gpu" / f"nvidia{index}")
    state, database = folder / "state", folder / "db"
    if state.exists() and (database.exists() or not made.accounting):
        return
    # Both are new or neither: with only one of them, job ids would be reused. The state is created last.
    for path in (state, database):
        shutil.rmtree(path, ignore_errors=True)
    if made.accounting:
        try:
            done = ask(install_database(database))
        except subprocess.TimeoutExpired as error:
            raise HomeError(
                f"{database}: mariadb-install-db did not end within {error.timeout:.0f} s; is the disk slow or busy? "
                "start the cluster again when it is not"
            ) from error
        if done.returncode != 0:
            raise HomeError(f"mariadb-install-db failed: {(done.stderr or done.stdout).strip()}")
    state.mkdir(mode=PRIVATE)


def free_ports(wanted: Mapping[str, int] | None = None) -> dict[str, int]:
    """Choose a free TCP port for every daemon that needs one, if possible the wanted one. Raises HomeError."""
    ports = {name: port for name, port in (wanted or {}).items() if _is_free(port)}
    candidates = random.sample(PORT_RANGE, 500)
    for name in PORTS:
        while name not in ports:
            if not candidates:
                raise HomeError(f"no free TCP port found between {PORT_RANGE.start} and {PORT_RANGE.stop}")
            port = candidates.pop()
            if port not in ports.values() and _is_free(port):
                ports[name] = port
    return ports


def taken_ports(made: Made) -> list[int]:
    """The ports of a cluster, none of whose daemons run, that another program has taken since they were chosen."""
    return [port for port in made.ports.values() if not _is_free(port)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the daemons do
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _make_device(path: Path) -> None:
    try:
        if not path.is_char_device():
            path.unlink(missing_ok=True)
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except OSError as error:
        raise HomeError(
            f"{path}: a stand-in GPU is a device file, and mknod says: {error.strerror}; "
            "it needs root, and in a container the capability MKNOD"
        ) from error


def _write_private(path: Path, content: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
