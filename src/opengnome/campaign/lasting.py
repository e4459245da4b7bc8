"""Workers that stay from stage to stage."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class LastingExecutor(Executor):
    """An executor that outlives a stage that ended well: a queue is waited for once, a program loaded once.

    Shut down at the end of a stage it does nothing; ``shutdown(cancel_futures=True)`` ends it.
    """

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.is_closed = False

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self.inner.submit(function, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures and not self.is_closed:
            self.is_closed = True
            self.inner.shutdown(wait=wait, cancel_futures=True)
