"""A private Slurm cluster: start, inspect and end the processes of one folder, and no others."""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from slurm.private_cluster import processes
from slurm.private_cluster.config import refuse_path
from slurm.private_cluster.daemons import ADMIN_PATH, SLURMD, Daemon, find, stages
from slurm.private_cluster.folder import (
    HomeError,
    Made,
    decide,
    make_folder,
    prepare,
    read_made,
    refuse_machine,
    taken_ports,
    write_configuration,
)
from trainer.records.base import Versioned
from trainer.records.files import RecordError, read_json, write_json
from trainer.records.process import Process, describe, is_alive

READY_S = 60.0  # on an idle machine each daemon answers within a second or two
NEW_DATABASE_S = 180.0  # mariadb-install-db writes some hundred MB: 2 s, on a slow disk over a minute
ENDED_S = 10.0  # slurmctld saves its state, MariaDB its tables
JOB_ENDED_S = 3.0  # KillWait
POLL_S = 0.05
TRIES = 3  # ports are chosen seconds before the daemons take them, and another program may be quicker


class Running(Versioned):
    """running.json: the started daemons, by name."""

    daemons: dict[str, Process] = {}


class PrivateCluster:
    """A cluster in a folder. Its daemons: munged, mariadbd, slurmdbd, slurmctld and "slurmd NODE" for every node."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).resolve()
        self.slurm_conf = self.folder / "etc" / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """The caller's environment, changed so that Slurm's commands use this cluster."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH_", "SRUN_"))}
        return {**kept, "SLURM_CONF": str(self.slurm_conf)}

    def run(self, *command: str, timeout_s: float = 20.0) -> str:
        """Run a command against this cluster and return its standard output. Raises HomeError."""
        try:
            done = self._ask(command, timeout_s)
        except subprocess.TimeoutExpired as error:
            raise HomeError(f"{command[0]} did not answer within {timeout_s:.0f} s") from error
        if done.returncode != 0:
            output = (done.stderr or done.stdout).strip()
            raise HomeError(f"{' '.join(command)}: exit code {done.returncode}: {output}")
        return done.stdout

    def start(self, *, accounting: bool | None = None, extra: Sequence[str] | None = None) -> list[str]:
        """Start the daemons that do not run, wait until they answer, and return their names.

        accounting: with slurmdbd and MariaDB; None: as the folder was made, with them in a new one. extra: lines that
        replace slurm.conf's with the same keys; None: as before. Raises HomeError, after ending what it started.
        """
        made = read_made(self.folder)
        refusal = refuse_path(self.folder) or refuse_machine(
            accounting=made.accounting if made else accounting is not False
        )
        if refusal:
            raise HomeError(refusal)
        make_folder(self.folder)
        with self._alone():
            for _ in range(TRIES - 1):
                keep_ports = any(self.daemons().values())
                try:
                    return self._start(accounting, extra, keep_ports=keep_ports)
                except HomeError:
                    made = read_made(self.folder)
                    if keep_ports or made is None or not taken_ports(made):
                        raise
            return self._start(accounting, extra, keep_ports=any(self.daemons().values()))

    def _start(self, accounting: bool | None, extra: Sequence[str] | None, *, keep_ports: bool) -> list[str]:
        made = decide(self.folder, accounting, extra, keep_ports=keep_ports)
        write_configuration(self.folder, made)
        missing = [[daemon for daemon in stage if not self.is_running(daemon.name)] for stage in self._stages(made)]
        try:
            prepare(self.folder, made, lambda command: self._ask(command, NEW_DATABASE_S))
            for stage in missing:
                self._start_together(stage)
        except BaseException:
            for stage in reversed(missing):
                self._end([daemon.name for daemon in stage])
            raise
        return [daemon.name for stage in missing for daemon in stage]

    def stop(self) -> list[str]:
        """End all daemons and jobs of the folder and return their names; the state stays for the next start.

        Raises HomeError if something does not end.
        """
        if not self.folder.is_dir():
            return self._end_all()
        with self._alone():
            return self._end_all()

    def daemons(self) -> dict[str, Process | None]:
        """Return every daemon's process by name, None for one that does not run; empty before the first start."""
        made = read_made(self.folder)
        stages = self._stages(made) if made else []
        return {daemon.name: self._process(daemon.name) for stage in stages for daemon in stage}

    def nodes(self) -> dict[str, str]:
        """Return the state of every node, as sinfo prints it. Raises HomeError."""
        rows = (line.split() for line in self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines())
        return {row[0]: row[1] for row in rows}

    def is_running(self, name: str) -> bool:
        """Tell whether a daemon's process lives, suspended or not."""
        return self._process(name) is not None

    def start_daemon(self, name: str, *, wait: bool = True) -> None:
        """Start one daemon unless it runs; wait: until it answers. Raises HomeError."""
        made = read_made(self.folder)
        found = [daemon for stage in self._stages(made) for daemon in stage if daemon.name == name] if made else []
        if not found:
            raise HomeError(f"{self.folder}: no daemon '{name}'; there are {', '.join(self.daemons())}")
        if not self.is_running(name):
            self._start_together(found, wait=wait)

    def stop_daemon(self, name: str) -> None:
        """Terminate a daemon and wait for its end."""
        self._end([name])

    def kill(self, name: str) -> None:
        """Kill a daemon, as a crash would. The jobs of a slurmd continue."""
        processes.kill(self._living([name]).values())

    def kill_node(self, node: str) -> None:
        """Kill a node's slurmd and jobs, as a power cut would.

        slurmctld notices after 18 s, at once if told by 'scontrol update nodename=NODE state=down reason=…', and after
        up to 60 s if the slurmd is back before (22.05.8).
        """
        self.kill(SLURMD + node)
        jobs, above = processes.steps(str(self.slurm_conf), node)
        processes.kill([*above, *jobs])

    def suspend(self, name: str) -> None:
        """Stop a daemon with SIGSTOP: it is there and does not answer."""
        self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Continue a suspended daemon."""
        self._signal(name, signal.SIGCONT)

    def log(self, name: str) -> str:
        """Return the last lines of a daemon's output and of its log."""
        written = (self.folder / "log" / f"{_file_name(name)}.{kind}" for kind in ("out", "log"))
        texts = [path.read_text(errors="replace") for path in written if path.exists()]
        return "\n".join(line for text in texts for line in text.splitlines()[-10:])

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / "lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise HomeError(f"{self.folder}: another command is starting or stopping this cluster") from error
            yield

    def _stages(self, made: Made) -> list[list[Daemon]]:
        port = made.ports["mariadbd"]
        return stages(self.folder, accounting=made.accounting, database_port=port, password=made.password)

    def _start_together(self, daemons: Sequence[Daemon], *, wait: bool = True) -> None:
        started = time.time()
        for daemon in daemons:
            self._spawn(daemon)
        if wait:
            for daemon in daemons:
                self._wait_until_ready(daemon, started)

    def _spawn(self, daemon: Daemon) -> None:
        # stop finds the processes by SLURM_CONF, which survives a change of process title only as the last variable.
        environment = {**self.environment, "PATH": ADMIN_PATH}
        environment["SLURM_CONF"] = environment.pop("SLURM_CONF")
        pid = processes.start(
            [_program(daemon.command[0]), *daemon.command[1:]],
            environment,
            self.folder,
            self.folder / "log" / f"{_file_name(daemon.name)}.out",
        )
        with contextlib.suppress(psutil.NoSuchProcess):  # ended already; the wait reports it
            known = {**self._running(), daemon.name: describe(pid)}
            write_json(self.folder / "running.json", Running(daemons=known))

    def _wait_until_ready(self, daemon: Daemon, started: float) -> None:
        deadline = time.monotonic() + READY_S
        problem = f"did not answer within {READY_S:.0f} s"
        while time.monotonic() < deadline:
            if not self.is_running(daemon.name):
                problem = "ended at once"
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = self._ask(daemon.question, max(POLL_S, deadline - time.monotonic()))
                if done.returncode == 0 and daemon.ready(done.stdout, started):
                    return
            time.sleep(POLL_S)
        raise HomeError(f"{daemon.name} {problem}; its log ends with:\n{self.log(daemon.name)}")

    def _end_all(self) -> list[str]:
        conf = str(self.slurm_conf)
        ended = self._end([name for name in self._running() if name.startswith(SLURMD)])
        # Before the jobs, so that the next slurmctld sees them as lost with their node, not as failed by themselves.
        ended += self._end(["slurmctld"])
        jobs, above = processes.steps(conf)
        ended += [f"job process {process.pid}" for process in jobs]
        try:
            processes.end(jobs, JOB_ENDED_S)
            processes.kill([*above, *(process for part in processes.steps(conf) for process in part)])
            for name in ("slurmdbd", "mariadbd", "munged"):
                ended += self._end([name])
            # Those without a record, from a start that was killed before it wrote one.
            unrecorded = processes.daemons(conf)
            ended += [f"unrecorded {process.name()} {process.pid}" for process in unrecorded]
            processes.end(unrecorded, ENDED_S)
        except processes.StillAlive as error:
            raise HomeError(f"{self.folder}: {error}") from error
        (self.folder / "running.json").unlink(missing_ok=True)
        return ended

    def _end(self, names: Sequence[str]) -> list[str]:
        living = self._living(names)
        try:
            processes.end(living.values(), ENDED_S)
        except processes.StillAlive as error:
            raise HomeError(f"{self.folder}: {error}") from error
        return list(living)

    def _running(self) -> dict[str, Process]:
        try:
            running = read_json(self.folder / "running.json", Running)
        except RecordError as error:
            raise HomeError(str(error)) from error
        return running.daemons if running else {}

    def _process(self, name: str) -> Process | None:
        process = self._running().get(name)
        if process is None:
            return None
        processes.reap()
        return process if is_alive(process) else None

    def _living(self, names: Sequence[str]) -> dict[str, psutil.Process]:
        found = {}
        for name in names:
            process = self._process(name)
            if process is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    found[name] = psutil.Process(process.pid)
        return found

    def _signal(self, name: str, number: signal.Signals) -> None:
        for process in self._living([name]).values():
            process.send_signal(number)

    def _ask(self, command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_program(command[0]), *command[1:]],
            env={"SLURM_TIME_FORMAT": "%s", **self.environment, "LC_ALL": "C", "PATH": ADMIN_PATH},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )


def _program(name: str) -> str:
    path = find(name)
    if path is None:
        raise HomeError(f"{name} is not on PATH")
    return path


def _file_name(daemon: str) -> str:
    return daemon.replace(SLURMD, "slurmd.")
