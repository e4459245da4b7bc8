"""A whole campaign by the command line: on Parsl as on local processes, stopped and killed, and its calculations."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faults.driving import TESTS, wait_until
from opengnome.campaign.journal import Journal
from opengnome.campaign.stopping import EXIT_STOPPED

SETTINGS = """
name = "tiny"
[known]
elements = ["Li", "Na", "K", "Mg", "Ca", "O", "S", "F", "Cl"]
[parents]
max_atoms = 4
max_parents = 6
parents_per_shard = 1
[generation]
max_substitutions_per_parent = 4
max_partial_per_parent = 2
max_subsets_per_count = 1
[model]
width = 16
edge_width = 16
layers = 1
cutoff = 4.0
[training]
epochs = 2
[training_set]
max_atoms = 6
[ensemble]
n_members = 2
initial = "none"
[screening]
n_volume_scales = 5
[rounds]
n_rounds = 2
budget = 3
random_unfiltered = 2
[oracle.relaxation]
fmax = 0.1
max_steps = 10
[execution]
workers = 2
stop_grace_s = 5.0
"""
PARSL = """
engine = "parsl"
[execution.parsl]
workers_per_node = {workers}
heartbeat_s = 5
"""
DEADLINE_S = float(os.environ.get("FAULT_DEADLINE_S", "600"))


def comparable(root: Path) -> str:
    """Everything that happened in a campaign but wall times, as text: an energy that nobody judged is NaN."""
    with Journal(root / "journal.sqlite", read_only=True) as journal:
        found = {event.key: event.model_dump(exclude={"seconds"}) for event in journal}
    for values in found.values():
        values["metrics"] = {k: v for k, v in values.get("metrics", {}).items() if "second" not in k}
    return json.dumps(found, indent=1, sort_keys=True)


def start(root: Path, settings: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "opengnome", "discover", str(root), "--settings", str(settings), "--quiet"]
    return subprocess.Popen(command, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(process: subprocess.Popen[bytes]) -> None:
    try:
        assert process.wait(timeout=DEADLINE_S) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "settings.toml").write_text(SETTINGS)
    finish(start(folder / "campaign", folder / "settings.toml"))
    return folder / "campaign"


@pytest.mark.parametrize("workers", [2, 4])
def test_on_parsl_it_ends_in_the_same_state(undisturbed: Path, tmp_path: Path, workers: int) -> None:
    pytest.importorskip("parsl", reason='needs Parsl: pip install "opengnome[hpc]"')
    (tmp_path / "settings.toml").write_text(SETTINGS + PARSL.format(workers=workers))
    finish(start(tmp_path / "campaign", tmp_path / "settings.toml"))
    assert comparable(tmp_path / "campaign") == comparable(undisturbed)


def test_stopped_by_a_queue_and_begun_again_it_ends_in_the_same_state(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    root = tmp_path / "campaign"
    process = start(root, tmp_path / "settings.toml")
    try:
        shards = root / "rounds" / "01" / "shards"
        wait_until(lambda: any(shards.glob("*.starts")), timeout_s=DEADLINE_S, what="the screening")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == EXIT_STOPPED
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    second = start(root, tmp_path / "settings.toml")
    third = start(root, tmp_path / "settings.toml")  # of two at once one is refused
    codes = sorted([second.wait(timeout=DEADLINE_S), third.wait(timeout=DEADLINE_S)])
    assert codes == [0, 2]
    assert comparable(root) == comparable(undisturbed)


BAD_CALCULATOR = """
import os, signal, threading
import numpy as np
from ase.calculators.calculator import Calculator, all_changes

class Bad(Calculator):
    implemented_properties = ["energy", "forces", "stress"]

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        symbols = set(atoms.get_chemical_symbols())
        if "Pb" in symbols:
            os.kill(os.getpid(), signal.SIGABRT)
        if "Tl" in symbols:
            threading.Event().wait()
        if "Bi" in symbols:
            np.ones(2**34)
        energy = np.nan if "Hg" in symbols else -1.0 * len(atoms)
        self.results = {"energy": energy, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}
"""
RUN = """
import json, sys
from pathlib import Path
from opengnome.campaign import CampaignSettings, Progress
from opengnome.campaign.actions import Calculate
from opengnome.campaign.alignment import no_alignment
from opengnome.campaign.context import Context
from opengnome.campaign.executors import Crew
from opengnome.campaign.perform import perform
from opengnome.campaign.state import CampaignState
from opengnome.crystals import CrystalTable
from opengnome.crystals.io import write_table
from report.synthetic_campaign import grid_crystal

if __name__ == "__main__":
    root, formulas = Path(sys.argv[1]), sys.argv[2:]
    settings = CampaignSettings.model_validate({
        "oracle": {"name": "ase", "calculator": "bad_calculator:Bad", "relaxation": {"timeout_s": 1.0}},
        "execution": {"attempts": 2, "workers": 2, "memory_gb": 4.0, "hang_factor": 1.0, "hang_grace_s": 30.0},
    })
    with Crew(settings.execution, root) as crew:
        context = Context(root, settings, make_executor=crew, progress=Progress(quiet=True))
        crystals = [grid_crystal(formula) for formula in formulas]
        write_table(context.layout.chosen(1), CrystalTable.from_crystals(crystals, formulas))
        state = CampaignState(alignment=no_alignment())
        for event in perform(context, state, [Calculate(1, formula) for formula in formulas]):
            print(json.dumps([event.crystal_id, event.status, event.reason]))
"""


def test_a_calculation_that_crashes_hangs_eats_memory_or_gives_nan_is_a_record(tmp_path: Path) -> None:
    (tmp_path / "bad_calculator.py").write_text(BAD_CALCULATOR)
    (tmp_path / "run.py").write_text(RUN)
    path = os.pathsep.join([str(tmp_path), str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "campaign")]
    formulas = ["NaCl", "PbO", "TlCl", "K2O", "BiN", "HgO", "LiF"]
    for _ in range(2):  # the second time nothing is run again
        ran = subprocess.run(
            [*command, *formulas],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        told = {i: (status, reason) for i, status, reason in map(json.loads, ran.stdout.splitlines())}
        assert {i: status for i, (status, _) in told.items()} == {
            "NaCl": "converged",
            "PbO": "failed",
            "TlCl": "failed",
            "K2O": "converged",
            "BiN": "failed",
            "HgO": "not_finite",
            "LiF": "converged",
        }
        assert "died 2 times; the last time its process was ended by SIGABRT" in told["PbO"][1]
        assert told["TlCl"][1].startswith("hung: killed after")
        assert "wait" in told["TlCl"][1]
        assert "Unable to allocate" in told["BiN"][1]
