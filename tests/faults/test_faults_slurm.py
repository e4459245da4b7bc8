"""A real SLURM of two nodes: blocks cancelled, the driver killed, a program on two nodes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.driving import Driving, children, wait_until
from faults.slurm_cluster import CannotRunError, SlurmCluster

pytest.importorskip("parsl", reason='needs Parsl: pip install "opengnome[hpc]"')

ENDED_S = 90.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    try:
        cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
        cluster.start()
    except CannotRunError as reason:
        pytest.skip(str(reason))
    yield cluster
    cluster.stop()


def slurm(cluster: SlurmCluster, **settings: Any) -> dict[str, Any]:
    return {
        "engine": "parsl",
        "parsl": {
            "where": "slurm",
            "partition": "main",
            "workers_per_node": 1,
            "cores_per_node": 1,
            "walltime": "00:20:00",
            "scheduler_options": ["#SBATCH --comment=opengnome"],
            "worker_init": [f"export {name}={value}" for name, value in cluster.environment.items()],
            "address": "127.0.0.1",
            "heartbeat_s": 2,
            **settings,
        },
    }


def test_a_cancelled_block_is_replaced_and_its_unit_goes_on(cluster: SlurmCluster, tmp_path: Path) -> None:
    execution = slurm(cluster, init_blocks=2, max_blocks=2) | {"attempts": 1}
    driving = Driving(tmp_path, execution, {"work": 30, "go_on": 2}, seconds=1.0, environment=cluster.environment)
    driver = driving.start()
    wait_until(lambda: len(driving.ledger) > 5, timeout_s=300, what="work", processes=[driver])
    cancelled = cluster.jobs()[0]
    cluster.run("scancel", cancelled)
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    driving.assert_all_right()
    assert not driving.losses, "a unit is not charged for its block, though it has one attempt"
    wait_until(lambda: not cluster.jobs(), timeout_s=ENDED_S, what="the end of the jobs")


def test_driver_killed_its_jobs_end_and_the_next_goes_on(cluster: SlurmCluster, tmp_path: Path) -> None:
    execution = slurm(cluster, init_blocks=1, max_blocks=1, nodes_per_block=2)
    driving = Driving(tmp_path, execution, {"work": 40}, seconds=1.0, environment=cluster.environment)
    driver = driving.start()
    wait_until(lambda: len(driving.results) > 5, timeout_s=300, what="results", processes=[driver])
    (interchange,) = children(driver.pid, "interchange")
    driver.kill()
    driver.communicate()
    wait_until(lambda: not Path(f"/proc/{interchange}").exists(), timeout_s=10, what="the end of the interchange")
    wait_until(lambda: not cluster.jobs(), timeout_s=ENDED_S, what="the end of the jobs")
    finished = {path: path.stat().st_mtime_ns for path in driving.results.values()}
    assert len(finished) < 40, "all was done before the kill: nothing was tested"
    driving.finish()
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    driving.assert_all_right()


def test_a_calculation_takes_two_nodes(cluster: SlurmCluster, tmp_path: Path) -> None:
    execution = slurm(cluster, nodes_per_block=2, nodes_per_calculation=2)
    units = {"run_on_all_nodes": 2}
    driving = Driving(tmp_path, execution, units, environment=cluster.environment)
    driving.finish()
    assert len(driving.results) == 2
    for path in driving.results.values():
        assert path.read_text() == "rank 0 on n1\nrank 1 on n2"
