"""Parsl's interchange as a process that ends with the driver.

Parsl leaves it running when the driver is killed, and it keeps its blocks alive up to their wall time
(https://github.com/Parsl/parsl/issues/3663). When it is gone, workers miss its signs of life and end.

This file is run by its path, with the driver's process id as its argument: importing the package would cost it the
memory of torch.
"""

import os
import runpy
import signal
import sys
import threading
import time

_LOOK_S = 0.5
"""Seconds between two looks whether the driver is alive."""


def _end_with(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(_LOOK_S)
    os._exit(1)


def _main(driver: int) -> None:
    for number in (signal.SIGINT, signal.SIGUSR1):  # the driver's: it ends this process in the end
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
