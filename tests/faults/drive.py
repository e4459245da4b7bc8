"""A driver of cheap units as a program of its own, to be killed: ``python drive.py ROOT SETTINGS.json``.

Exit codes are those of `opengnome discover`: 0 done, 75 stopped by a signal.
"""

import json
import sys
from pathlib import Path
from typing import Any

from faults import fault_units
from opengnome.campaign.execution import Unit, run_units
from opengnome.campaign.execution_settings import ExecutionSettings
from opengnome.campaign.executors import Crew, rules_of
from opengnome.campaign.stopping import StoppedError, StopRequest, stopping


def units_of(root: Path, asked: dict[str, Any]) -> list[Unit]:
    """One unit for each name: ``{"work": 20}`` are twenty units of the function `work`."""
    units = []
    for name, number in asked["units"].items():
        for i in range(number):
            path = root / "results" / f"{name}-{i:04d}"
            arguments: dict[str, Any] = {"path": path}
            if name in ("work", "go_on"):
                arguments |= {"seconds": asked["seconds"], "ledger": root / "ledger"}
            units.append(Unit(path, getattr(fault_units, name), arguments))
    return units


def main(root: Path, asked: dict[str, Any]) -> int:
    settings = ExecutionSettings.model_validate(asked["execution"])
    (root / "results").mkdir(parents=True, exist_ok=True)
    stop = StopRequest(grace_s=settings.stop_grace_s, tell=lambda text: print(text, flush=True))
    with stopping(stop), Crew(settings, root / "execution") as crew:
        print("ready", flush=True)
        try:
            for ended in run_units(units_of(root, asked), crew, rules=rules_of(settings), stop=stop):
                if ended.lost:
                    with (root / "losses").open("a") as file:
                        file.write(f"{ended.unit.path.name}: {ended.lost}\n")
        except StoppedError as error:
            print(error, flush=True)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
