"""Settings of where the work is done: processes of this machine, a batch queue, hosts, a Dask cluster."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from opengnome.settings import Settings


class ParslSettings(Settings):
    """Blocks of workers that Parsl starts, https://parsl-project.org (Babuji et al. 2019, doi:10.1145/3307681.3325400).

    A block is one job of a batch queue (or one process group of this machine, or all of `hosts`). Each of its nodes
    runs workers, each worker one unit at a time.
    """

    where: Literal["local", "hosts", "slurm", "pbs", "torque", "lsf"] = "local"
    """local: this machine. hosts: the machines in `hosts`, over ssh. slurm, pbs (PBS Professional, OpenPBS), torque,
    lsf: jobs of a batch queue."""
    hosts: tuple[str, ...] = ()
    """For hosts: names that ssh reaches without asking for a password."""
    ssh: str = "ssh"
    """For hosts: the command that runs a line on a host, e.g. "ssh -o BatchMode=yes -p 2222"."""
    partition: str | None = None
    """Partition (SLURM) or queue (PBS, LSF)."""
    account: str | None = None
    """Who pays: account (SLURM, PBS) or project (LSF)."""
    walltime: str = "01:00:00"
    """Longest life of a block, HH:MM:SS. What it has not finished goes on in the next block."""
    nodes_per_block: int = Field(default=1, ge=1)
    """Nodes of a job. For hosts it is their number."""
    cores_per_node: int | None = Field(default=None, ge=1)
    """Cores asked for on each node."""
    workers_per_node: int | None = Field(default=None, ge=1)
    """Workers on each node; by default `cores_per_node` divided by `execution.cores_per_calculation`, or 1."""
    memory_per_node_gb: int | None = Field(default=None, ge=1)
    """Memory asked for on each node, GB (SLURM)."""
    gpus_per_node: int | None = Field(default=None, ge=1)
    """Graphics cards asked for on each node (SLURM); each worker then sees one of them."""
    exclusive: bool = False
    """Whole nodes (SLURM)."""
    init_blocks: int = Field(default=1, ge=0)
    """Blocks asked for at the beginning."""
    min_blocks: int = Field(default=0, ge=0)
    """Blocks kept when there is nothing to do."""
    max_blocks: int = Field(default=1, ge=1)
    """Most blocks at once."""
    max_idle_s: float = Field(default=120.0, gt=0)
    """A block without work is given back after this time, seconds."""
    scheduler_options: tuple[str, ...] = ()
    """Lines of the site for the head of the job script, e.g. "#SBATCH --qos=long"."""
    select_options: str = ""
    """For pbs: behind the select statement, e.g. "mem=64gb:ngpus=1"."""
    worker_init: tuple[str, ...] = ()
    """Shell lines before workers start, e.g. "module load vasp"."""
    python: str | None = None
    """The Python that workers run; by default the path of the one that runs the campaign."""
    launcher: Literal["auto", "srun", "mpiexec", "none"] = "auto"
    """What starts the workers on all nodes of a block: by default srun for SLURM, mpiexec for other queues, none where
    there is one node."""
    nodes_per_calculation: int = Field(default=1, ge=1)
    """Nodes that one calculation takes. Above 1 the workers of a block run on its first node, and the command of the
    engine must begin with the variable `PARSL_MPI_PREFIX` of its environment: see docs/clusters.md."""
    mpi_launcher: Literal["srun", "mpiexec", "aprun"] = "srun"
    """For `nodes_per_calculation` above 1: which prefix is put into the environment."""
    address: str | None = None
    """Name or number under which workers reach this machine; by default they try all it has."""
    interface: str | None = None
    """Network interface whose address workers reach, e.g. "ib0"; in place of `address`."""
    port_range: tuple[int, int] = (54000, 55000)
    """Ports that workers connect to."""
    encrypted: bool = True
    """Encrypt what goes between the driver and the workers. Keys are files that only this user can read."""
    heartbeat_s: int = Field(default=30, ge=1)
    """Seconds between two signs of life; a block is lost when four are missing, and so is the driver for a block."""

    @field_validator("walltime")
    @classmethod
    def _check_walltime(cls, walltime: str) -> str:
        if not re.fullmatch(r"\d+:[0-5]\d:[0-5]\d", walltime):
            raise ValueError('must be written as HH:MM:SS, e.g. "48:00:00"')
        return walltime

    @model_validator(mode="after")
    def _check_place(self) -> "ParslSettings":
        if self.where == "hosts" and not self.hosts:
            raise ValueError('where = "hosts" needs hosts = ["name", ...]')
        if self.where != "hosts" and self.hosts:
            raise ValueError(f'hosts are used with where = "hosts", but where = "{self.where}"')
        if self.address is not None and self.interface is not None:
            raise ValueError("give address or interface, not both")
        if self.min_blocks > self.max_blocks or self.init_blocks > self.max_blocks:
            raise ValueError("min_blocks and init_blocks must not be above max_blocks")
        if self.nodes % self.nodes_per_calculation:
            raise ValueError(
                f"a block of {self.nodes} nodes cannot be shared by calculations of {self.nodes_per_calculation} nodes "
                "each; make nodes_per_block a multiple of nodes_per_calculation"
            )
        if self.nodes_per_calculation > 1 and self.where in ("local", "hosts"):
            raise ValueError(
                "calculations of several nodes need the nodes of a batch queue; for MPI on one node set "
                "execution.cores_per_calculation and write the number of ranks into the engine's command"
            )
        return self

    @property
    def nodes(self) -> int:
        """Nodes of a block."""
        return len(self.hosts) or self.nodes_per_block

    def workers_on_node(self, cores_per_calculation: int) -> int:
        """Workers on each node."""
        if self.workers_per_node is not None:
            return self.workers_per_node
        if self.cores_per_node is None:
            return 1
        return max(1, self.cores_per_node // cores_per_calculation)

    def capacity(self, cores_per_calculation: int) -> int:
        """Units that run at once when there are as many blocks as there may be."""
        if self.nodes_per_calculation > 1:
            return self.max_blocks * (self.nodes // self.nodes_per_calculation)
        return self.max_blocks * self.nodes * self.workers_on_node(cores_per_calculation)


class DaskSettings(Settings):
    """A Dask cluster that runs already; its workers need one thread each (``dask worker --nthreads 1``).

    For more than 32 of them say how many with `execution.workers`: twice that number of units is submitted at once.
    """

    scheduler: str | None = None
    """Address of the scheduler, e.g. "tcp://node1:8786"."""
    scheduler_file: str | None = None
    """Or the JSON file that ``dask scheduler --scheduler-file`` writes."""

    @model_validator(mode="after")
    def _check_address(self) -> "DaskSettings":
        if (self.scheduler is None) == (self.scheduler_file is None):
            raise ValueError("give either scheduler or scheduler_file")
        return self


class ExecutionSettings(Settings):
    """Where the work is done. Nothing of it changes results, so all of it may change when a campaign is resumed."""

    engine: Literal["local", "parsl", "dask"] = "local"
    """local: processes of this machine. parsl: see [execution.parsl]; needs `opengnome[hpc]`. dask: see
    [execution.dask]."""
    workers: int = Field(default=0, ge=0)
    """For local: processes; 0 takes one per core (per `cores_per_calculation` cores). Each uses one thread."""
    cores_per_calculation: int = Field(default=1, ge=1)
    """Cores that a calculation takes: those of an engine's command such as "mpirun -n 8 vasp_std"."""
    attempts: int = Field(default=3, ge=1)
    """How often a unit may take its process down before it counts as failed."""
    interruptions: int = Field(default=20, ge=0)
    """How often a unit may lose the block of the queue it runs in before it counts as failed: blocks end."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory that a worker, and each program it starts, may write to, GiB. What needs more fails and is recorded."""
    hang_factor: float = Field(default=2.0, ge=1)
    """A calculation that does not come back is killed after this many times `relaxation.timeout_s` ..."""
    hang_grace_s: float = Field(default=600.0, ge=0)
    """... and this many seconds."""
    stop_grace_s: float = Field(default=30.0, ge=0)
    """When asked to stop (SIGTERM, SIGUSR1, Ctrl-C), seconds that units under way get to end. The others are ended and
    go on from where they were with the next start."""
    parsl: ParslSettings | None = None
    """For parsl; left out, its defaults."""
    dask: DaskSettings | None = None
    """For dask."""

    @model_validator(mode="after")
    def _check_engine(self) -> "ExecutionSettings":
        if self.engine == "dask" and self.dask is None:
            raise ValueError('engine = "dask" needs dask.scheduler or dask.scheduler_file')
        return self
