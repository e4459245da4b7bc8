"""What Parsl is told, by kind of queue, and a Dask cluster in this process."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from opengnome.campaign import process_worker_pool
from opengnome.campaign.execution import Rules, Unit, run_units
from opengnome.campaign.execution_settings import DaskSettings, ParslSettings
from opengnome.errors import SettingsError


def write(path: Path) -> None:
    path.write_text("done")


def executor(given: dict[str, Any], cores_per_calculation: int = 1) -> Any:
    pytest.importorskip("parsl", reason='needs Parsl: pip install "opengnome[hpc]"')
    from opengnome.campaign.parsl_workers import _parsl_executor

    return _parsl_executor(ParslSettings.model_validate({"address": "127.0.0.1"} | given), cores_per_calculation)


def test_slurm_gets_the_options_of_the_site() -> None:
    given = {
        "where": "slurm",
        "partition": "long",
        "account": "mat42",
        "walltime": "48:00:00",
        "nodes_per_block": 4,
        "cores_per_node": 64,
        "max_blocks": 8,
        "scheduler_options": ["#SBATCH --qos=high", "#SBATCH --constraint=cpu"],
        "worker_init": ["module load vasp", "source env/bin/activate"],
    }
    pool = executor(given, cores_per_calculation=16)
    provider = pool.provider
    assert (provider.partition, provider.account, provider.walltime) == ("long", "mat42", "48:00:00")
    assert (provider.nodes_per_block, provider.max_blocks, provider.cores_per_node) == (4, 8, 64)
    assert "#SBATCH --qos=high\n#SBATCH --constraint=cpu" in provider.scheduler_options
    lines = provider.worker_init.splitlines()
    assert lines[0] == f"cd {os.getcwd()}"  # noqa: PTH109
    assert "export OMP_NUM_THREADS=1" in lines
    assert lines[-2:] == ["module load vasp", "source env/bin/activate"]
    assert type(provider.launcher).__name__ == "SrunLauncher"
    assert pool.max_workers_per_node == 4
    assert f" {sys.executable} -P {process_worker_pool.__file__} " in pool.launch_cmd


@pytest.mark.parametrize(
    ("where", "kind", "names"),
    [
        ("pbs", "PBSProProvider", {"queue": "long", "account": "mat42", "cpus_per_node": 8}),
        ("torque", "TorqueProvider", {"queue": "long", "account": "mat42"}),
        ("lsf", "LSFProvider", {"queue": "long", "project": "mat42", "cores_per_node": 8}),
    ],
)
def test_other_queues(where: str, kind: str, names: dict[str, Any]) -> None:
    given = {"where": where, "partition": "long", "account": "mat42", "cores_per_node": 8, "nodes_per_block": 2}
    provider = executor(given).provider
    assert type(provider).__name__ == kind
    assert {name: getattr(provider, name) for name in names} == names
    assert type(provider.launcher).__name__ == "MpiExecLauncher"


def test_torque_is_asked_for_the_cores_of_a_node() -> None:
    provider = executor({"where": "torque", "cores_per_node": 64}, cores_per_calculation=16).provider
    assert "#PBS -l nodes=${nodes_per_block}:ppn=64\n" in provider.template_string


def test_calculations_of_several_nodes_share_a_block() -> None:
    pool = executor({"where": "slurm", "nodes_per_block": 8, "nodes_per_calculation": 2})
    assert type(pool).__name__ == "MPIExecutor"
    assert pool.max_workers_per_block == 4
    assert type(pool.provider.launcher).__name__ == "SimpleLauncher"


def test_hosts_are_reached_one_by_one() -> None:
    given = {"where": "hosts", "hosts": ["a", "b"], "ssh": "ssh -p 2222", "worker_init": ["source it's"]}
    script = executor(given).provider.launcher("run --workers", 1, 2)
    lines = [line for line in script.splitlines() if line.startswith("ssh -p 2222 ")]
    assert [line.split()[3] for line in lines] == ["a", "b"]
    assert script.count("exec run --workers") == 2
    assert script.endswith("wait")


def test_dask_workers_do_the_same_work(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs Dask: pip install 'dask[distributed]'")
    from opengnome.campaign.dask_workers import DaskWorkers

    one_thread = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**one_thread) as cluster, distributed.Client(cluster) as client:
        paths = [tmp_path / str(i) for i in range(5)]
        units = [Unit(path, write, {"path": path}) for path in paths]
        ended = list(run_units(units, lambda: DaskWorkers(client), rules=Rules(window=2)))
        assert len(ended) == 5
        assert all(path.read_text() == "done" for path in paths)


def test_dask_workers_of_several_threads_are_refused() -> None:
    distributed = pytest.importorskip("distributed", reason="needs Dask: pip install 'dask[distributed]'")
    from opengnome.campaign.dask_workers import DaskWorkers

    two = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with (
        distributed.LocalCluster(**two) as cluster,
        distributed.Client(cluster) as client,
        pytest.raises(SettingsError, match="--nthreads 1"),
    ):
        DaskWorkers(client)


def test_a_scheduler_that_is_not_there_is_told(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs Dask: pip install 'dask[distributed]'")
    from opengnome.campaign.dask_workers import connect_dask

    with pytest.raises(SettingsError, match=r"there is no file .*absent\.json"):
        connect_dask(DaskSettings(scheduler_file=str(tmp_path / "absent.json")))


class Pool:
    """What is told to give up."""

    def __init__(self) -> None:
        self.given_up = ""

    def set_bad_state_and_fail_all(self, error: BaseException) -> None:
        self.given_up = str(error)


@pytest.mark.parametrize(
    ("lived_s", "ended", "is_given_up"),
    [
        (3600.0, "COMPLETED", False),  # PBS, at the end of the wall time
        (3600.0, "FAILED", False),  # LSF
        (3600.0, "TIMEOUT", False),  # SLURM
        (5.0, "FAILED", True),
        (5.0, "COMPLETED", True),
        (5.0, "CANCELLED", False),
        (3600.0, "MISSING", True),  # it ended and had never connected
    ],
)
def test_blocks_whose_wall_time_is_over_have_not_failed(
    lived_s: float, ended: str, is_given_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("parsl", reason='needs Parsl: pip install "opengnome[hpc]"')
    from parsl.jobs.states import JobState, JobStatus

    from opengnome.campaign import parsl_workers

    now = 0.0
    monkeypatch.setattr(parsl_workers.time, "monotonic", lambda: now)
    watch, pool, status = parsl_workers._BlockWatch(), Pool(), {}
    for block in ("9", "10", "11"):
        status[block] = JobStatus(JobState.RUNNING)
        watch(pool, status)
        now += lived_s
        assert not pool.given_up
        status[block] = JobStatus(JobState[ended], message="no such queue", exit_code=3)
        watch(pool, status)
    assert bool(pool.given_up) == is_given_up
    if is_given_up:
        assert "3 in a row ended, the last with exit code 3: no such queue" in pool.given_up
