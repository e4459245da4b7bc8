"""The executor that the settings ask for: local processes, Parsl, or a Dask cluster, all one interface.

Results are files, so nothing that an engine forgets is lost with it.
"""

from concurrent.futures import Executor
from pathlib import Path
from types import TracebackType

from opengnome.campaign.dask_workers import connect_dask
from opengnome.campaign.execution import Rules, available_cores, local_executor
from opengnome.campaign.execution_settings import ExecutionSettings, ParslSettings
from opengnome.campaign.lasting import LastingExecutor
from opengnome.campaign.limits import Limits, code_identity
from opengnome.campaign.parsl_workers import ParslWorkers
from opengnome.errors import SettingsError

_SUBMITTED_PER_WORKER = 2
"""Units submitted for each worker, so that it has the next one when it ends one."""
_LEAST_WINDOW = 64


def rules_of(settings: ExecutionSettings) -> Rules:
    """How units are run by these settings.

    Workers are told which program they must be: a distributed one may be of another installation, and a local one is
    started from whatever the driver's has become since.
    """
    return Rules(
        attempts=settings.attempts,
        interruptions=settings.interruptions,
        window=max(_LEAST_WINDOW, _SUBMITTED_PER_WORKER * (capacity(settings) or local_workers(settings))),
        limits=Limits(
            memory_gb=settings.memory_gb,
            hang_factor=settings.hang_factor,
            hang_grace_s=settings.hang_grace_s,
            code=code_identity(),
        ),
    )


def capacity(settings: ExecutionSettings) -> int | None:
    """Units that run at once when all workers are there; of a Dask cluster it is not known."""
    if settings.engine == "parsl":
        return (settings.parsl or ParslSettings()).capacity(settings.cores_per_calculation)
    return local_workers(settings) if settings.engine == "local" else None


def local_workers(settings: ExecutionSettings) -> int:
    """Processes of this machine."""
    return settings.workers or max(1, available_cores() // settings.cores_per_calculation)


class Crew:
    """The workers of a campaign: calling it gives their executor.

    They stay from stage to stage. Close it, or use it as a context manager.
    """

    def __init__(self, settings: ExecutionSettings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        """For logs of the engine and scripts of its jobs; on the file system that all workers see."""
        self._lasting: LastingExecutor | None = None

    def __call__(self) -> Executor:
        if self._lasting is None or self._lasting.is_closed:
            self._lasting = LastingExecutor(self._connect())
        return self._lasting

    def _connect(self) -> Executor:
        if self.settings.engine == "local":
            return local_executor(local_workers(self.settings))
        if self.settings.engine == "dask":
            if self.settings.dask is None:
                raise SettingsError('engine = "dask" needs dask.scheduler or dask.scheduler_file')
            return connect_dask(self.settings.dask)
        return ParslWorkers(self.settings, self.folder)

    def close(self) -> None:
        """End the workers, whatever they do; Dask's stay, as they are the user's."""
        if self._lasting is not None:
            self._lasting.shutdown(cancel_futures=True)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
