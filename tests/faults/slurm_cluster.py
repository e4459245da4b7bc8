"""A SLURM of two nodes on this machine, from Debian's packages in a scratch folder: no installation, no root daemon."""

import os
import platform
import shutil
import socket
import subprocess
import time
from pathlib import Path

PACKAGES = (
    "slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libmunge2 libhwloc15 liblua5.3-0 libpmix2 librrd8 "
    "libipmimonitoring6 libfreeipmi17 libb64-0d libjwt0 librdkafka1 libhdf5-103-1 libevent-core-2.1-7 "
    "libevent-pthreads-2.1-7"
).split()
UP_S = 60.0

CONFIGURATION = """\
ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
PluginDir={libraries}/slurm-wlm
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=5
MpiDefault=none
ReturnToService=2
SlurmctldPort={ports[0]}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=01:00:00 State=UP OverSubscribe=NO
"""


class CannotRunError(Exception):
    """Why there is no SLURM here."""


class SlurmCluster:
    """Nodes n1 and n2, partition main."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.libraries = self.root / "usr" / "lib" / f"{platform.machine()}-linux-gnu"
        self._unpack()
        for name in ("state", "log", "spool.n1", "spool.n2"):
            (folder / name).mkdir()
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=platform.node(), user=_user(), folder=folder, libraries=self.libraries, ports=_free_ports(3)
            )
        )
        self.environment = {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "LD_LIBRARY_PATH": f"{self.libraries}:{self.libraries}/slurm-wlm",
            "PATH": f"{self.root}/usr/bin:{os.environ['PATH']}",
        }
        self._daemons: list[subprocess.Popen[bytes]] = []

    def _unpack(self) -> None:
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            raise CannotRunError("SLURM is unpacked from Debian's packages, and this system has no apt-get and dpkg")
        packages = self.folder / "packages"
        packages.mkdir(parents=True)
        fetched = subprocess.run(
            ["apt-get", "download", *PACKAGES], cwd=packages, capture_output=True, text=True, timeout=300, check=False
        )
        if fetched.returncode:
            raise CannotRunError(f"Debian's packages of SLURM cannot be had: {fetched.stderr.strip()[-300:]}")
        for package in packages.iterdir():
            subprocess.run(["dpkg", "-x", str(package), str(self.root)], check=True)

    def start(self) -> None:
        """Start the daemons and wait for the nodes."""
        programs = self.root / "usr" / "sbin"
        self._start([str(programs / "slurmctld-wlm"), "-D", "-c"])
        for node in ("n1", "n2"):
            self._start([str(programs / "slurmd-wlm"), "-D", "-N", node, "-d", str(programs / "slurmstepd-wlm")])
        deadline = time.monotonic() + UP_S
        while self.run("sinfo", "-h", "-o", "%T %D") != "idle 2":
            if time.monotonic() > deadline:
                log = (self.folder / "log" / "slurmctld.log").read_text()[-1000:]
                raise CannotRunError(f"SLURM did not come up in {UP_S:g} s: {log}")
            time.sleep(0.5)

    def _start(self, command: list[str]) -> None:
        with (self.folder / "log" / "started.log").open("ab") as log:
            environment = {**os.environ, **self.environment}
            self._daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def run(self, *command: str) -> str:
        """What a command of SLURM prints."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.strip()

    def jobs(self) -> list[str]:
        """Ids of the jobs that run."""
        return self.run("squeue", "-h", "-t", "RUNNING", "-o", "%i").split()

    def stop(self) -> None:
        """End all jobs and the daemons."""
        for job in self.run("squeue", "-h", "-o", "%i").split():
            self.run("scancel", job)
        deadline = time.monotonic() + 20
        while self.run("squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.5)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
