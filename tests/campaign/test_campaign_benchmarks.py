"""What the benchmarks of campaigns tell, from records and results that can be checked by hand."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


# --- idle share -----------------------------------------------------------------------------------------------


def stage(name: str, ended: float, wall: float, busy: float, *, workers: int | None) -> dict[str, Any]:
    return {
        "time": ended, "message": f"{name}: 4 units ended", "stage": name, "units": 4, "busy_s": busy, "wall_s": wall,
        "workers": workers,
    }  # fmt: skip


def write_records(folder: Path, records: list[dict[str, Any]]) -> None:
    text = "".join(f"\n{json.dumps(record)}\n" for record in records)
    (folder / "progress.jsonl").write_text('{"time": 1.0, "mess\n' + text)


def test_each_stage_has_its_own_workers_and_a_long_step_of_the_driver_does_not_vanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        {"time": 1000.0, "message": "known set: 9 crystals"},
        {"time": 1010.0, "message": "round 1, training: 0/4"},
        stage("round 1, training", 1100.0, 100.0, 150.0, workers=2),
        {"time": 1130.0, "message": "round 1: ensemble ready"},  # 30 s of the driver alone: 2 workers wait
        # 500 s without a record
        stage("round 1, relaxations", 1730.0, 100.0, 360.0, workers=4),
        {"time": 1740.0, "message": "campaign finished"},  # 4 workers wait for 10 s
    ]
    write_records(tmp_path, records)
    run(script("idle_share"), monkeypatch, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:30].strip(): line[30:].split() for line in lines[1:4]}
    assert rows["training"] == ["4", "100.0", "25.0%"], "150 of 2 x 100 s"
    assert rows["relaxations"] == ["4", "100.0", "10.0%"], "360 of 4 x 100 s"
    # 2 x 130 + 4 x 110 = 700 s of workers, 510 of them busy
    assert rows["all, and between stages"] == ["8", "240.0", "27.1%"]
    assert lines[4] == "left out: 500.0 s in 1 gaps of more than 120 s without a record"
    assert lines[5] == "  500.0 s after 'round 1: ensemble ready', before 'round 1, relaxations: 4 units ended'"
    assert lines[6].split()[-2:] == ["740.0", "70.0%"], "510 of 700 + 2 x 500 s"
    run(script("idle_share"), monkeypatch, tmp_path, "--gap", 600)
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split()[-2:] == ["740.0", "70.0%"]
    assert lines[4:] == ["left out: 0.0 s in 0 gaps of more than 600 s without a record"]


def test_a_campaign_of_unknown_workers_or_without_stages_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path, [{"time": 1000.0, "message": "known set: 9 crystals"}])
    with pytest.raises(SystemExit, match="no records of stages"):
        run(script("idle_share"), monkeypatch, tmp_path)
    write_records(tmp_path, [stage("generating", 1000.0, 10.0, 5.0, workers=None)])
    with pytest.raises(SystemExit, match="not known"):
        run(script("idle_share"), monkeypatch, tmp_path)


# --- overhead -------------------------------------------------------------------------------------------------


def test_the_overhead_of_a_calculation_is_the_sum_of_all_that_the_driver_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, path = script("bench_campaign_overhead"), tmp_path / "found.json"
    # the module was loaded from a path, so a worker process could not import its functions
    monkeypatch.setattr(module, "time_units", lambda _folder, units, _workers: (1e-3 * len(units), 0.0))
    run(module, monkeypatch, "--calculations", 20, "--candidates", 300, "--json", path)
    found = json.loads(path.read_text())
    steps = found["calculation_ms_by_step"]
    assert list(steps) == [
        "name by digest", "unit: send, mark, file, flush, settle", "reading of its file", "event in the journal",
        "state after the event", "progress line",
    ]  # fmt: skip
    assert all(value["wall"] > 0 for value in steps.values())
    assert found["calculation_ms"]["wall"] == pytest.approx(sum(value["wall"] for value in steps.values()))
    assert found["calculation_ms"]["wall"] > 1.0
    assert found["candidate_us"]["wall"] > 0
    assert "choice, per candidate of 300" in capsys.readouterr().out


# --- acquisition rules ----------------------------------------------------------------------------------------


def of_strategy(at: dict[str, Any], repeats: int) -> dict[str, Any]:
    target = {"at": at, "area": {"mean": 0.5, "interval": None}}
    names = ("stable", "within 25 meV/atom", "within 50 meV/atom")
    return {"repeats": [*range(repeats)], "targets": dict.fromkeys(names, target), "systems_with_a_find": [7, 8]}


def told(share: float, more: float | None) -> dict[str, Any]:
    return {
        "share": share, "enrichment": 10 * share, "interval": [9 * share, 11 * share], "more_than_reference": more,
        "more_than_reference_interval": None,
    }  # fmt: skip


def test_cells_are_empty_where_a_strategy_did_not_get_so_far() -> None:
    module = script("retrospective")
    result = {
        "budgets": [1000, 5000],
        "reference": "rule",
        "strategies": {
            "short": of_strategy({"1000": told(0.2, -5.0)}, 3),
            "rule": of_strategy({"1000": told(0.3, 0.0), "5000": told(0.25, 0.0)}, 3),
        },
    }
    first, _, short, rule = module.comparison(result, "stable")
    assert first.count("|") == short.count("|") == rule.count("|") == 8
    assert "enrichment at 1000" in first
    assert "enrichment at 5000" in first
    assert short == "| short | 3 | 20.0 % | 2.00 (1.80 to 2.20) |  |  | 0.500 |"
    assert rule == "| rule | 3 | 30.0 % | 3.00 (2.70 to 3.30) | 25.0 % | 2.50 (2.25 to 2.75) | 0.500 |"
    assert module.against_reference(result)[2:] == ["| short | -5 |  | 8 |", "| rule | +0 | +0 | 8 |"]
    assert "(short)" in module.unspent(result)
    del result["strategies"]["short"]
    assert module.unspent(result) == ""


def test_a_process_runs_the_repeats_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Table:
        left_out: tuple[int, ...] = ()

        def __len__(self) -> int:
            return 9

    module = script("retrospective")
    asked: list[list[int]] = []
    monkeypatch.setattr(module, "prepare_table", lambda *_: Table())
    monkeypatch.setattr(module, "run_retrospective", lambda *_, repeats, progress: asked.append(list(repeats)))
    given = ("--table", tmp_path / "table.parquet", "--output", tmp_path)
    run(module, monkeypatch, *given, "--repeats", 3)
    run(module, monkeypatch, *given, "--first", 3, "--repeats", 5)
    assert asked == [[0, 1, 2], [3, 4]]
    with pytest.raises(SystemExit):
        run(module, monkeypatch, *given, "--first", 5)
    assert "no repeat to run" in capsys.readouterr().err
