"""Executors of other packages, whose errors become those that `execution.run_units` knows."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class TranslatingExecutor(Executor):
    """An executor whose futures carry the errors of `execution.run_units`."""

    def __init__(self, translate: Callable[[BaseException], BaseException]) -> None:
        self._translate = translate

    def _translated(self, inner: Future[Any]) -> Future[Any]:
        outer: Future[Any] = Future()

        def settle(ended: Future[Any]) -> None:
            try:
                error = ended.exception()
            except BaseException as cancelled:  # each engine has its own
                error = cancelled
            if not outer.set_running_or_notify_cancel():
                return
            if error is None:
                outer.set_result(ended.result())
            else:
                outer.set_exception(self._translate(error))

        inner.add_done_callback(settle)
        return outer
