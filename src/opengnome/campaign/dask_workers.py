"""Workers of a Dask cluster that the user has started, https://distributed.dask.org."""

from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from typing import Any

from opengnome.campaign.execution import BlockLostError, EngineDiedError
from opengnome.campaign.execution_settings import DaskSettings
from opengnome.campaign.local_workers import WorkerDiedError
from opengnome.campaign.translating import TranslatingExecutor
from opengnome.errors import SettingsError


def connect_dask(settings: DaskSettings) -> Executor:
    """The executor of a running Dask cluster.

    Raises `SettingsError` when it is not reached, or its workers have several threads.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise SettingsError(f'engine = "dask" needs Dask ({error}): pip install "dask[distributed]"') from error
    if settings.scheduler_file is not None and not Path(settings.scheduler_file).is_file():
        raise SettingsError(
            f"there is no file {settings.scheduler_file}; start the scheduler with "
            "`dask scheduler --scheduler-file FILE`, or correct execution.dask.scheduler_file"
        )
    try:
        client = Client(address=settings.scheduler, scheduler_file=settings.scheduler_file)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"no Dask scheduler at {settings.scheduler or settings.scheduler_file}: {error}; start one with "
            "`dask scheduler`, or correct execution.dask"
        ) from error
    return DaskWorkers(client)


class DaskWorkers(TranslatingExecutor):
    """The workers of a `distributed.Client`; shut down, it lets go of its units and leaves the cluster alone.

    Pass ``make_executor=lambda: DaskWorkers(client)`` to `discover` for a client of your own. Raises `SettingsError`
    for workers of several threads: limits of memory and time are those of a process.
    """

    def __init__(self, client: Any) -> None:
        super().__init__(_from_dask)
        threads = {about["nthreads"] for about in client.scheduler_info(n_workers=-1)["workers"].values()}
        if threads - {1}:
            raise SettingsError(
                f"Dask workers have up to {max(threads)} threads; start them with --nthreads 1 (and --nworkers N)"
            )
        self._executor: Any = client.get_executor(pure=False)
        self._running: set[Any] = set()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        inner: Any = self._executor.submit(function, *args, **kwargs)
        self._running.add(inner)
        inner.add_done_callback(self._running.discard)
        return self._translated(inner)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - Executor's
        if cancel_futures:
            for future in list(self._running):
                future.cancel()


def _from_dask(error: BaseException) -> BaseException:
    from distributed import CancelledError as DaskCancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):  # after several deaths, which the marks of the unit count
        return WorkerDiedError(str(error))
    if isinstance(error, CommClosedError):
        return EngineDiedError(str(error))
    if isinstance(error, DaskCancelledError | CancelledError):
        return BlockLostError(str(error))
    return error
