"""Workers that Parsl starts: on this machine, on hosts, in jobs of a batch queue.

Babuji et al. 2019, doi:10.1145/3307681.3325400; https://parsl.readthedocs.io.
"""

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from opengnome.campaign import interchange, process_worker_pool
from opengnome.campaign.execution import BlockLostError, BlocksFailError, EngineDiedError
from opengnome.campaign.execution_settings import ExecutionSettings, ParslSettings
from opengnome.campaign.local_workers import ONE_THREAD, WorkerDiedError
from opengnome.campaign.translating import TranslatingExecutor
from opengnome.errors import SettingsError, WorkFailedError

_MISSED_SIGNS = 4
"""Signs of life that may be missing before a block is lost."""
_FAILED_BLOCKS = 3
"""Blocks in a row that fail before the set-up is blamed."""
_SHORT_LIFE_S = 120.0
"""A block that ends by itself after less than this has failed. Queues do not tell a block that failed from one whose
wall time is over: PBS calls both completed, LSF both failed."""
_CLEAN_UP_S = 30.0
"""Seconds that Parsl gets to end what it has started."""
_POOL = "process_worker_pool.py"


class ParslWorkers(TranslatingExecutor):
    """Workers that Parsl's HighThroughputExecutor (or, for calculations of several nodes, MPIExecutor) starts.

    Raises `SettingsError` when Parsl is not installed, `WorkFailedError` when it cannot start. Shut down, it cancels
    its blocks and what they do.
    """

    def __init__(self, settings: ExecutionSettings, folder: Path) -> None:
        super().__init__(self._from_parsl)
        try:
            from parsl.dataflow.dflow import DataFlowKernel
        except ImportError as error:
            raise SettingsError(f'engine = "parsl" needs Parsl ({error}): pip install "opengnome[hpc]"') from error
        self._settings = settings.parsl or ParslSettings()
        self._pool = _parsl_executor(self._settings, settings.cores_per_calculation)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._kernel: Any = DataFlowKernel(_parsl_config(self._pool, self._settings, folder))
        except Exception as error:  # Parsl's own are of the plain kind
            raise WorkFailedError(f"Parsl cannot start: {error}; its logs are in {folder}") from error
        self._interchange_is_gone = False
        threading.Thread(target=self._watch, daemon=True).start()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        call, named = function, kwargs
        n_nodes = self._settings.nodes_per_calculation
        if n_nodes > 1:
            shape = {"num_nodes": n_nodes, "ranks_per_node": 1, "num_ranks": n_nodes}
            args, named = (function, *args), {**kwargs, "parsl_resource_specification": shape}
            call = _on_nodes
        submitted: Future[Any] = self._kernel.submit(
            call, app_args=args, executors="all", cache=False, ignore_for_cache=None, app_kwargs=named
        )
        return self._translated(submitted)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if self._kernel is None:
            return
        kernel, self._kernel = self._kernel, None
        if wait and not cancel_futures:
            kernel.wait_for_current_tasks()
        cleaning = threading.Thread(target=kernel.cleanup, daemon=True)
        cleaning.start()
        cleaning.join(_CLEAN_UP_S)  # it waits for ever for an interchange that is gone
        provider = self._pool.provider
        with suppress(Exception):  # in a bad state Parsl cancels no blocks; one that ended cannot be cancelled
            provider.cancel([job for job, about in provider.resources.items() if not about["status"].terminal])
        if self._pool.interchange_proc.poll() is None:
            self._pool.interchange_proc.kill()

    def _watch(self) -> None:
        """Parsl does not look whether its interchange is alive, and would wait for ever."""
        self._pool.interchange_proc.wait()
        if self._kernel is not None:
            self._interchange_is_gone = True
            self._pool.set_bad_state_and_fail_all(RuntimeError("Parsl's interchange has died"))

    def _from_parsl(self, error: BaseException) -> BaseException:
        from parsl.executors.errors import BadStateException
        from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost
        from parsl.jobs.errors import TooManyJobFailuresError

        if isinstance(error, WorkerLost):
            return WorkerDiedError(str(error))
        if isinstance(error, ManagerLost):
            return BlockLostError(str(error))
        if isinstance(error, BadStateException | TooManyJobFailuresError):
            return EngineDiedError(str(error)) if self._interchange_is_gone else BlocksFailError(str(error))
        return error


def _on_nodes(
    function: Callable[..., Any],
    *args: Any,
    parsl_resource_specification: Any,  # noqa: ARG001 - the name is Parsl's
    **kwargs: Any,
) -> Any:
    """Parsl hands the shape on to the function; it is for the worker only."""
    return function(*args, **kwargs)


def _parsl_config(pool: Any, settings: ParslSettings, folder: Path) -> Any:
    from parsl import Config

    return Config(
        executors=[pool],
        run_dir=str(folder),
        # not "htex_auto_scale": with fewer units than workers it cancels, as idle, a block that is only starting, and
        # asks for the next one, without end
        strategy="simple",
        max_idletime=settings.max_idle_s,
        usage_tracking=0,
        initialize_logging=False,  # the program's own logging is left alone
    )


def _parsl_executor(settings: ParslSettings, cores_per_calculation: int) -> Any:
    from parsl.addresses import address_by_interface
    from parsl.executors import HighThroughputExecutor, MPIExecutor
    from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD

    address = settings.address
    if settings.interface is not None:
        address = address_by_interface(settings.interface)
    elif address is None and settings.where == "local":
        address = "127.0.0.1"

    python = shlex.quote(settings.python or sys.executable)
    one_thread = " ".join(f"{name}={value}" for name, value in ONE_THREAD.items())
    several_nodes = settings.nodes_per_calculation > 1
    common: dict[str, Any] = {
        "provider": _provider(settings, cores_per_calculation),
        # by path: the scripts need not be on the PATH of a job
        "launch_cmd": DEFAULT_LAUNCH_CMD.replace(
            _POOL, f"env {one_thread} {python} -P {shlex.quote(str(process_worker_pool.__file__))}"
        ),
        "address": address,
        "worker_port_range": settings.port_range,
        "encrypted": settings.encrypted,
        "heartbeat_period": settings.heartbeat_s,
        "heartbeat_threshold": _MISSED_SIGNS * settings.heartbeat_s,
        "block_error_handler": _BlockWatch(),
    }
    pool: Any
    if several_nodes:
        pool = MPIExecutor(
            label="workers",
            max_workers_per_block=settings.nodes // settings.nodes_per_calculation,
            mpi_launcher=settings.mpi_launcher,
            **common,
        )
    else:
        pool = HighThroughputExecutor(
            label="workers",
            max_workers_per_node=settings.workers_on_node(cores_per_calculation),
            cores_per_worker=1e-9,  # their number is given above
            available_accelerators=settings.gpus_per_node or (),
            **common,
        )
    pool.interchange_launch_cmd = [sys.executable, "-P", str(interchange.__file__), str(os.getpid())]
    return pool


class _BlockWatch:
    """Gives up when the last blocks never connected, or have all ended by themselves as soon as they began."""

    def __init__(self) -> None:
        self._running_since: dict[str, float] = {}
        self._lived: dict[str, float] = {}

    def __call__(self, executor: Any, status: Mapping[str, Any]) -> None:
        """Parsl calls it with the states of all blocks at every look at the queue, every few seconds."""
        from parsl.jobs.errors import TooManyJobFailuresError

        self._note(status)
        last = sorted(status, key=int)[-_FAILED_BLOCKS:]
        if len(last) == _FAILED_BLOCKS and all(self._has_failed(block, status[block]) for block in last):
            told = status[last[-1]]
            words = [told.message, told.stderr_summary, told.stdout_summary]
            text = "; ".join(word.strip() for word in words if word and word.strip())
            executor.set_bad_state_and_fail_all(
                TooManyJobFailuresError(
                    f"{_FAILED_BLOCKS} in a row ended, the last with exit code {told.exit_code}: {text}"
                )
            )

    def _note(self, status: Mapping[str, Any]) -> None:
        from parsl.jobs.states import JobState

        now = time.monotonic()
        for block, about in status.items():
            if about.state == JobState.RUNNING:
                self._running_since.setdefault(block, now)
            elif about.terminal:
                self._lived.setdefault(block, now - self._running_since.get(block, now))

    def _has_failed(self, block: str, about: Any) -> bool:
        from parsl.jobs.states import JobState

        if about.state == JobState.MISSING:  # Parsl's word for a block that ended before it connected
            return True
        by_itself = about.state in (JobState.FAILED, JobState.COMPLETED)
        return by_itself and self._lived[block] < _SHORT_LIFE_S


def _provider(settings: ParslSettings, cores_per_calculation: int) -> Any:
    """Where blocks come from."""
    from parsl import providers

    common: dict[str, Any] = {
        "nodes_per_block": settings.nodes,
        "init_blocks": settings.init_blocks,
        "min_blocks": settings.min_blocks,
        "max_blocks": settings.max_blocks,
        "worker_init": "" if settings.where == "hosts" else "\n".join(_first_lines(settings)),
        "launcher": _launcher(settings),
    }
    queued = common | {
        "walltime": settings.walltime,
        "scheduler_options": "\n".join(settings.scheduler_options),
    }
    match settings.where:
        case "local" | "hosts":
            return providers.LocalProvider(**common)
        case "slurm":
            return providers.SlurmProvider(
                partition=settings.partition,
                account=settings.account,
                cores_per_node=settings.cores_per_node,
                mem_per_node=settings.memory_per_node_gb,
                gpus_per_node=settings.gpus_per_node,
                exclusive=settings.exclusive,
                **queued,
            )
        case "pbs":
            return providers.PBSProProvider(
                account=settings.account,
                queue=settings.partition,
                cpus_per_node=_cores(settings, cores_per_calculation),
                select_options=settings.select_options,
                **queued,
            )
        case "torque":
            provider = providers.TorqueProvider(account=settings.account, queue=settings.partition, **queued)
            # Parsl's script asks for as many cores as commands are started on a node, which is one: the pool
            cores = _cores(settings, cores_per_calculation)
            provider.template_string = provider.template_string.replace("ppn=${tasks_per_node}", f"ppn={cores}")
            return provider
        case "lsf":
            return providers.LSFProvider(
                project=settings.account,
                queue=settings.partition,
                cores_per_node=_cores(settings, cores_per_calculation),
                **queued,
            )


def _cores(settings: ParslSettings, cores_per_calculation: int) -> int:
    return settings.cores_per_node or settings.workers_on_node(cores_per_calculation) * cores_per_calculation


def _first_lines(settings: ParslSettings) -> list[str]:
    """Shell lines at the beginning of a block: the driver's directory and paths, one thread, then the site's own."""
    variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    if os.environ.get("PYTHONPATH"):
        variables["PYTHONPATH"] = os.environ["PYTHONPATH"]
    return [
        f"cd {shlex.quote(str(Path.cwd()))}",
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        *settings.worker_init,
    ]


def _launcher(settings: ParslSettings) -> Any:
    from parsl import launchers

    if settings.where == "hosts":
        return _ssh_launcher(settings)
    chosen = settings.launcher
    if chosen == "auto":
        several = settings.nodes > 1 and settings.nodes_per_calculation == 1
        chosen = ("srun" if settings.where == "slurm" else "mpiexec") if several else "none"
    return {
        "srun": launchers.SrunLauncher,
        "mpiexec": launchers.MpiExecLauncher,
        "none": launchers.SimpleLauncher,
    }[chosen]()


def _ssh_launcher(settings: ParslSettings) -> Any:
    from parsl.launchers.base import Launcher

    class SshLauncher(Launcher):  # type: ignore[misc,unused-ignore]
        """Runs the command on every host of the block, and ends when all have ended."""

        def __call__(self, command: str, *_shape: Any, **_folder: Any) -> str:
            line = shlex.quote("\n".join([*_first_lines(settings), f"exec {command}"]))
            starts = [f"{settings.ssh} {shlex.quote(host)} {line} </dev/null &" for host in settings.hosts]
            return "\n".join([*starts, "wait"])

    return SshLauncher()
