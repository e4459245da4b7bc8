"""Parsl's pool of workers on a node, ended when it has lost the process that keeps its books.

Parsl's pool asks that process for every task and every message. Killed alone (by a node out of memory, above all), it
leaves a pool that gives signs of life, works no more, restarts no worker, and writes a gigabyte of errors to its log
in minutes. A pool that ends is a lost block, which is replaced.

Run as a file by the Python of the workers (`parsl_workers`), so it imports nothing of this package.
"""

import multiprocessing
import os
import runpy
import sys
import threading
import time
from multiprocessing.process import BaseProcess

POOL = "parsl.executors.high_throughput.process_worker_pool"
_BOOKS = "SyncManager"  # the beginning of the name that multiprocessing gives to such a process
_LOOK_S = 1.0


def main() -> None:
    """Run the pool with the arguments of this process."""
    threading.Thread(target=_end_with_books, daemon=True).start()
    # as __main__, under the name that its workers import it by
    runpy.run_module(POOL, run_name="__main__", alter_sys=True)


def _end_with_books() -> None:
    books = _books()
    while books.is_alive():
        time.sleep(_LOOK_S)
    sys.stderr.write(f"{POOL}: the process that keeps the books of this pool is gone; the pool ends\n")
    sys.stderr.flush()
    os._exit(1)


def _books() -> BaseProcess:
    """The process, once it is there."""
    while True:
        for child in multiprocessing.active_children():
            if child.name.startswith(_BOOKS):
                return child
        time.sleep(0.1)


if __name__ == "__main__":
    main()
