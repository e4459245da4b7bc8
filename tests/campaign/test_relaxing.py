"""`relax`: rows, references of formation energies, the table of relaxed crystals as a known set, interruptions."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from campaign.gated_calculator import Gated
from opengnome.campaign import Progress, relaxing
from opengnome.campaign.commands import hull_rows
from opengnome.campaign.context import Context
from opengnome.campaign.elemental_references import read_relaxed_elements
from opengnome.campaign.preparation import start
from opengnome.campaign.relaxed_rows import for_screen
from opengnome.campaign.relaxing import calculations_beside, relax_rows
from opengnome.campaign.settings import CampaignSettings
from opengnome.campaign.stopping import EXIT_STOPPED, StopRequest
from opengnome.campaign.tables import Row, write_rows
from opengnome.campaign.work import calculation_key
from opengnome.cli import app
from opengnome.crystals import Crystal, CrystalTable, with_volume
from opengnome.crystals.io import cif_text, read_crystals, read_table, write_crystals, write_table
from opengnome.datasets import KnownSetSettings, load_known_set
from opengnome.errors import OracleSetupError, SettingsError
from opengnome.oracles import OracleSettings, make_oracle, read_calculation, write_calculation

EMT = OracleSettings(name="ase", calculator="ase.calculators.emt:EMT", level="EMT")
QUIET = Progress(quiet=True)


def fcc(z: int, volume: float) -> Crystal:
    """Face-centred, one atom."""
    return with_volume(Crystal([[0, 1, 1], [1, 0, 1], [1, 1, 0]], [[0, 0, 0]], [z]), volume)


def bcc(z: int, volume: float) -> Crystal:
    """Body-centred, one atom."""
    return with_volume(Crystal([[-1, 1, 1], [1, -1, 1], [1, 1, -1]], [[0, 0, 0]], [z]), volume)


def cscl(pair: tuple[int, int], volume: float) -> Crystal:
    """Ordered body-centred, two atoms."""
    return with_volume(Crystal(np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], pair), volume)


ALUMINIUM, COPPER, GOLD, LEAD, POLONIUM = 13, 29, 79, 82, 84
BATCH = {
    "al-fcc": fcc(ALUMINIUM, 16.0),
    "al-bcc": bcc(ALUMINIUM, 16.0),
    "cu": fcc(COPPER, 12.0),
    "alcu": cscl((ALUMINIUM, COPPER), 26.0),
    "aucu": cscl((GOLD, COPPER), 29.0),
}


OF_GPAW = {"energy_per_atom": -1.0, "level": "EMT", "code": "gpaw"}


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relaxations in this process."""
    monkeypatch.setattr(relaxing, "local_executor", lambda _workers: Inline())


class NotNowError(Exception):
    """A unit is to be left waiting."""


class Inline(Executor):
    """Runs a unit when it is submitted; `before` may raise, `NotNowError` leaves the unit waiting for ever."""

    def __init__(self, before: Callable[[Any], None] = lambda _unit: None) -> None:
        self.before = before

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            self.before(args[0])
            future.set_result(function(*args, **kwargs))
        except NotNowError:
            pass
        except Exception as error:
            future.set_exception(error)
        return future


def crystal_file(path: Path, crystals: dict[str, Crystal]) -> Path:
    write_table(path, CrystalTable.from_crystals(list(crystals.values()), list(crystals)))
    return path


def relaxed_rows(
    tmp_path: Path, crystals: dict[str, Crystal], settings: OracleSettings = EMT, **options: Any
) -> dict[str, Row]:
    """Rows by id of crystals relaxed in this process."""
    path = crystal_file(tmp_path / "crystals.parquet", crystals)
    rows = relax_rows([path], settings=settings, progress=QUIET, workers=1, **options)
    assert [row["id"] for row in rows] == list(crystals)
    return {row["id"]: row for row in rows}


@pytest.mark.usefixtures("inline")
def test_relaxations_are_kept_and_not_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "metals"
    folder.mkdir()
    for name, crystal in (("cu", fcc(COPPER, 12.5)), ("al", fcc(ALUMINIUM, 15.0)), ("copy of cu", fcc(COPPER, 12.5))):
        (folder / f"{name}.cif").write_text(cif_text(crystal, name="x"))
    (folder / "bad.cif").write_text("nothing")
    keep = tmp_path / "kept"
    rows = relax_rows([folder], settings=EMT, relaxed=tmp_path / "relaxed", keep=keep, workers=1, progress=QUIET)
    assert [(row["id"], row["status"]) for row in rows] == [
        ("al", "ok"),
        ("bad", "invalid_crystal"),
        ("copy of cu", "ok"),
        ("cu", "ok"),
    ]
    written = {path: path.stat().st_mtime_ns for path in keep.glob("*.parquet")}
    assert len(written) == 2
    again = relax_rows([folder], settings=EMT, keep=keep, workers=1, progress=QUIET)
    assert again == rows
    assert {path: path.stat().st_mtime_ns for path in keep.glob("*.parquet")} == written
    assert {row.id for row in read_crystals(tmp_path / "relaxed")} == {"al", "copy_of_cu", "cu"}


@pytest.mark.usefixtures("inline")
def test_elements_of_the_batch_are_the_references(tmp_path: Path) -> None:
    rows = relaxed_rows(tmp_path, BATCH)
    assert {row["status"] for row in rows.values()} == {"ok"}
    energy = {i: row["energy_per_atom"] for i, row in rows.items()}
    assert energy["al-fcc"] < energy["al-bcc"]  # both are there, the lower counts
    assert rows["al-fcc"]["formation_energy_per_atom"] == 0.0
    assert rows["al-bcc"]["formation_energy_per_atom"] == pytest.approx(energy["al-bcc"] - energy["al-fcc"])
    expected = energy["alcu"] - (energy["al-fcc"] + energy["cu"]) / 2
    assert rows["alcu"]["formation_energy_per_atom"] == pytest.approx(expected)
    assert rows["alcu"]["references"] == "Al: al-fcc (this batch); Cu: cu (this batch)"
    assert rows["aucu"]["formation_energy_per_atom"] is None
    assert "no elemental reference for Au at level 'EMT'; relax these elements" in rows["aucu"]["warning"]
    assert (rows["alcu"]["level"], rows["alcu"]["code"]) == ("EMT", "ase.calculators.emt:EMT")


@pytest.mark.usefixtures("inline")
def test_what_a_row_tells(tmp_path: Path) -> None:
    corners = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    distorted = Crystal(np.diag([3.4, 3.6, 3.8]), corners, [COPPER] * 4)
    (row,) = relaxed_rows(tmp_path, {"cu": distorted}, keep=tmp_path / "kept").values()
    calculation = read_calculation(next((tmp_path / "kept").glob("*.parquet")))
    assert calculation.crystal is not None
    assert (row["initial_space_group"], row["space_group"]) == ("Fmmm", "Fm-3m")
    assert row["volume_per_atom"] == pytest.approx(calculation.crystal.volume / 4)
    assert (row["n_steps"], row["fmax"], row["seconds"]) == (
        calculation.n_steps,
        calculation.fmax,
        calculation.seconds,
    )
    assert (row["band_gap"], row["corrections"]) == (None, "")
    shown = for_screen([row])[0]
    assert {"energy_per_atom", "formation_energy_per_atom", "space_group"} <= set(shown)
    assert not {"band_gap", "corrections", "warning", "level"} & set(shown)


@pytest.mark.usefixtures("inline")
def test_band_gap_and_corrections_of_an_engine_that_has_them(tmp_path: Path) -> None:
    crystals = {"al-fcc": BATCH["al-fcc"]}
    relaxed_rows(tmp_path, crystals, keep=tmp_path / "kept")
    (path,) = (tmp_path / "kept").glob("*.parquet")
    told = replace(read_calculation(path), band_gap=1.25, corrections=("relax-1: mixing", "static: width"))
    write_calculation(path, told)
    (row,) = relaxed_rows(tmp_path, crystals, keep=tmp_path / "kept", relaxed=tmp_path / "r.parquet").values()
    assert (row["band_gap"], row["corrections"]) == (1.25, "relax-1: mixing; static: width")
    assert read_table(tmp_path / "r.parquet").column("band_gap") == [1.25]


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("name", ["elements.csv", "elements.parquet", "relaxed.parquet"])
def test_references_from_an_earlier_table(tmp_path: Path, name: str) -> None:
    elements = {i: BATCH[i] for i in ("al-fcc", "cu")}
    relaxed = tmp_path / name if name.startswith("relaxed") else None
    first = relaxed_rows(tmp_path, elements, relaxed=relaxed)
    if relaxed is None:
        write_rows(tmp_path / name, list(first.values()))
    compounds = {"alcu": BATCH["alcu"]}
    (row,) = relaxed_rows(tmp_path, compounds, references=tmp_path / name).values()
    expected = row["energy_per_atom"] - (first["al-fcc"]["energy_per_atom"] + first["cu"]["energy_per_atom"]) / 2
    assert row["formation_energy_per_atom"] == pytest.approx(expected, abs=1e-12)
    assert row["references"] == f"Al: al-fcc ({name}); Cu: cu ({name})"
    # a lower element of the batch counts, and the table's where that is lower
    mixed = relaxed_rows(tmp_path, {"al-bcc": BATCH["al-bcc"], **compounds}, references=tmp_path / name)
    assert mixed["alcu"]["formation_energy_per_atom"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": "PBE"}, r"of the levels \['PBE'\], the oracle is of level 'EMT'"),
        ({"code": "another:Code"}, r"of level 'EMT' by another:Code, .* zeros of two codes differ"),
        ({"status": "unconverged"}, r"of the levels \[\], the oracle"),
        ({"reduced_formula": "AlCu"}, "no pure element among its 1 converged"),
        ({"energy_per_atom": None}, "no pure element among its 1 converged crystals, e.g. al"),
    ],
)
def test_references_that_do_not_fit_are_refused_before_anything_runs(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    identity = make_oracle(EMT).identity
    row = {
        "id": "al",
        "reduced_formula": "Al",
        "status": "ok",
        "reason": "",
        "energy_per_atom": -0.01,
        "level": "EMT",
        "code": identity.code,
    }
    write_rows(tmp_path / "good.csv", [row])
    assert [e.energy_per_atom for e in read_relaxed_elements(tmp_path / "good.csv", identity)] == [-0.01]
    write_rows(tmp_path / "bad.csv", [row | change])
    path = crystal_file(tmp_path / "crystals.parquet", BATCH)
    with pytest.raises(SettingsError, match=message):
        relax_rows([path], settings=EMT, references=tmp_path / "bad.csv", keep=tmp_path / "kept", progress=QUIET)
    assert not (tmp_path / "kept").exists()


def test_references_must_be_a_table_of_results(tmp_path: Path) -> None:
    identity = make_oracle(EMT).identity
    (tmp_path / "energies.csv").write_text("id,reduced_formula,energy_per_atom\nal,Al,-1\n")
    with pytest.raises(SettingsError, match=r"lacks the columns \['status', 'level'\]"):
        read_relaxed_elements(tmp_path / "energies.csv", identity)
    with pytest.raises(SettingsError, match=r"neither \.csv nor \.parquet"):
        read_relaxed_elements(tmp_path / "energies.json", identity)
    write_rows(
        tmp_path / "by gpaw.csv", [{"id": "al", "reduced_formula": "Al", "status": "ok", "reason": ""} | OF_GPAW]
    )
    with pytest.raises(SettingsError, match="by gpaw, this oracle computes with ase"):
        read_relaxed_elements(tmp_path / "by gpaw.csv", identity)
    repeated = replace(identity, name="recorded")  # answers of any code, whose name it does not know
    assert len(read_relaxed_elements(tmp_path / "by gpaw.csv", repeated)) == 1
    with pytest.raises(SettingsError, match="there is no file"):
        read_relaxed_elements(tmp_path / "nowhere.csv", identity)


@pytest.mark.usefixtures("inline")
def test_unconverged_crystals_are_written_and_known_to_nobody(tmp_path: Path) -> None:
    relaxed_rows(tmp_path, BATCH, relaxed=tmp_path / "first.parquet")
    first = read_table(tmp_path / "first.parquet")
    crystals = dict(zip(first.ids, first, strict=True)) | {"al-far": fcc(ALUMINIUM, 25.0)}
    one_step = EMT.model_copy(update={"relaxation": EMT.relaxation.model_copy(update={"max_steps": 1})})
    rows = relaxed_rows(tmp_path, crystals, one_step, relaxed=tmp_path / "known.parquet")
    assert [i for i, row in rows.items() if row["status"] == "unconverged"] == ["al-far"]
    assert rows["al-far"]["energy_per_atom"] is not None
    table = read_table(tmp_path / "known.parquet")
    by_id = dict(zip(table.ids, table.arrow.to_pylist(), strict=True))
    assert by_id["al-far"]["status"] == "unconverged"
    assert by_id["al-far"]["energy_per_atom"] is None
    assert by_id["alcu"]["status"] == "converged"
    known = load_known_set(KnownSetSettings(source=str(tmp_path / "known.parquet")))
    assert (known.level, known.energy_kind) == ("EMT", "total")
    assert known.table.ids == list(BATCH)
    assert known.left_out == {"its status is 'unconverged': no energy of a relaxed crystal": 1}
    judged = {row["id"]: row for row in hull_rows(tmp_path / "known.parquet", system="Al-Cu")}
    assert judged["al-far"]["status"] == "not_converged"
    for i in ("al-fcc", "cu", "alcu"):
        assert judged[i]["formation_energy_per_atom"] == pytest.approx(rows[i]["formation_energy_per_atom"])


@pytest.mark.usefixtures("inline")
def test_chgnet_relaxations_are_the_known_set_of_a_campaign(tmp_path: Path) -> None:
    embedded = load_known_set(KnownSetSettings())
    table = embedded.table
    of_system = [i for i, formula in enumerate(table.reduced_formulas) if formula in ("Na", "Cl2", "NaCl")]
    write_crystals(tmp_path / "few.parquet", table.take(np.array(of_system)))
    known_path = tmp_path / "known.parquet"
    rows = relax_rows(
        [tmp_path / "few.parquet"], settings=OracleSettings(), relaxed=known_path, workers=1, progress=QUIET
    )
    assert {row["status"] for row in rows} == {"ok"}
    known = load_known_set(KnownSetSettings(source=str(known_path)))
    assert known.level == embedded.level
    assert known.energies_per_atom == pytest.approx(embedded.energies_per_atom[of_system], abs=1e-3)
    assert "formation_energy_per_atom" in known.table.column_names  # `opengnome train` learns from it

    settings = CampaignSettings.model_validate({"known": {"source": str(known_path)}, "oracle": {"name": "chgnet"}})
    (tmp_path / "campaign").mkdir()
    context = Context(tmp_path / "campaign", settings, make_executor=Inline, progress=QUIET)
    assert start(context).known_digest == known.digest
    other = CampaignSettings(known=settings.known, oracle=EMT)
    with pytest.raises(SettingsError, match=r"known set is of level 'chgnet-0\.3\.0', the oracle of level 'EMT'"):
        start(Context(tmp_path / "campaign", other, make_executor=Inline, progress=QUIET))


@pytest.mark.usefixtures("inline")
def test_a_crystal_the_oracle_cannot_do_does_not_stop_the_others(tmp_path: Path) -> None:
    crystals = {"po": fcc(POLONIUM, 38.0), "cu": BATCH["cu"]}
    rows = relaxed_rows(tmp_path, crystals, OracleSettings(), keep=tmp_path / "kept")
    assert rows["cu"]["status"] == "ok"
    assert (rows["po"]["status"], rows["po"]["reduced_formula"]) == ("failed", "Po")
    assert "Po" in rows["po"]["reason"]
    assert len(list((tmp_path / "kept").glob("*.parquet"))) == 1


def test_a_damaged_library_is_no_crystals_fault(tmp_path: Path) -> None:
    pseudo = tmp_path / "pseudo"
    pseudo.mkdir()
    (pseudo / "Cu.UPF").write_text('<UPF><PP_HEADER functional="PBE"/></UPF>')
    (pseudo / "Al.UPF").write_text("half a file")
    section = {"command": sys.executable, "pseudo_dir": pseudo, "ecutwfc_ry": 30.0}
    settings = OracleSettings.model_validate({"name": "espresso", "espresso": section})
    (row,) = relaxed_rows(tmp_path, {"au": fcc(GOLD, 17.0)}, settings).values()
    assert (row["status"], row["reason"].partition(" in ")[0]) == ("failed", "no pseudopotential for Au")
    with pytest.raises(OracleSetupError, match=r"Al\.UPF is not a UPF file"):
        relaxed_rows(tmp_path, {"au": fcc(GOLD, 17.0), "al": BATCH["al-fcc"]}, settings)


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("name", ["relaxed", "relaxed.extxyz"])
def test_where_no_status_is_written_all_crystals_are_converged(tmp_path: Path, name: str) -> None:
    relaxed_rows(tmp_path, {"cu": BATCH["cu"]}, relaxed=tmp_path / "first.parquet")
    (done,) = read_table(tmp_path / "first.parquet")
    one_step = EMT.model_copy(update={"relaxation": EMT.relaxation.model_copy(update={"max_steps": 1})})
    crystals = {"cu": done, "al-far": fcc(ALUMINIUM, 25.0)}
    log = tmp_path / "log"
    path = crystal_file(tmp_path / "crystals.parquet", crystals)
    rows = relax_rows([path], settings=one_step, relaxed=tmp_path / name, workers=1, progress=Progress(log, quiet=True))
    assert [row["status"] for row in rows] == ["ok", "unconverged"]
    assert [row.id for row in read_crystals(tmp_path / name)] == ["cu"]
    assert "1 crystals that did not converge are left out" in log.read_text()


@pytest.mark.usefixtures("inline")
def test_crystals_that_cannot_be_written_cost_no_row(tmp_path: Path) -> None:
    rows = relaxed_rows(tmp_path, {"a/b": BATCH["cu"], "a_b": BATCH["al-fcc"]}, relaxed=tmp_path / "cifs")
    assert [row["status"] for row in rows.values()] == ["ok", "ok"]
    problem = "several crystals would be written to a_b.cif; ids must be unique"
    assert {row["warning"] for row in rows.values()} == {f"not written to {tmp_path / 'cifs'}: {problem}"}


@pytest.mark.usefixtures("inline")
def test_relaxed_crystals_of_an_earlier_run_do_not_pass_for_those_of_this_one(tmp_path: Path) -> None:
    relaxed = tmp_path / "relaxed.parquet"
    relaxed_rows(tmp_path, {"cu": BATCH["cu"]}, relaxed=relaxed)
    assert relaxed.exists()
    relaxed_rows(tmp_path, {"dense": fcc(COPPER, 0.5)}, relaxed=relaxed)
    assert not relaxed.exists()


def test_a_damaged_calculation_is_one_row(tmp_path: Path, inline: None) -> None:
    crystals = {i: BATCH[i] for i in ("al-fcc", "cu")}
    relaxed_rows(tmp_path, crystals, keep=tmp_path / "kept")
    sorted((tmp_path / "kept").glob("*.parquet"))[0].write_bytes(b"half a file")
    rows = relaxed_rows(tmp_path, crystals, keep=tmp_path / "kept")
    assert sorted(row["status"] for row in rows.values()) == ["failed", "ok"]
    assert any("not a readable Parquet file" in row["reason"] for row in rows.values())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "interrupted; the same command goes on"),
        (OracleSetupError("the scratch disk is full"), "the scratch disk is full; the same command goes on"),
    ],
)
def test_what_was_done_before_a_stop_has_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str
) -> None:
    n_begun = 0

    def third(_unit: Any) -> None:
        nonlocal n_begun
        n_begun += 1
        if n_begun == 3:
            raise error

    monkeypatch.setattr(relaxing, "local_executor", lambda _workers: Inline(third))
    options: dict[str, Any] = {"keep": tmp_path / "kept", "relaxed": tmp_path / "known.parquet"}
    stopped = relaxed_rows(tmp_path, BATCH, **options)
    assert [row["status"] for row in stopped.values()][:2] == ["ok", "ok"]
    not_run = [row for row in stopped.values() if row["status"] == "not_run"]
    assert {row["reason"] for row in not_run} == {reason}
    assert not_run[0]["reduced_formula"] == "Cu"
    assert read_table(tmp_path / "known.parquet").ids[:2] == ["al-fcc", "al-bcc"]
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").glob("*.parquet")}
    whole = relaxed_rows(tmp_path, BATCH, **options)
    assert {row["status"] for row in whole.values()} == {"ok"}
    assert all(path.stat().st_mtime_ns == modified for path, modified in kept.items())


def test_a_stop_that_is_asked_for_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopRequest()

    def ask(unit: Any) -> None:
        if COPPER in unit.arguments["crystal"].atomic_numbers:
            stop.by = "SIGTERM"
            raise NotNowError

    monkeypatch.setattr(relaxing, "local_executor", lambda _workers: Inline(ask))
    rows = relaxed_rows(tmp_path, BATCH, stop=stop, relaxed=tmp_path / "known.parquet")
    assert [i for i, row in rows.items() if row["status"] == "ok"] == ["al-fcc", "al-bcc"]
    assert read_table(tmp_path / "known.parquet").ids == ["al-fcc", "al-bcc"]
    reasons = {row["reason"] for row in rows.values() if row["status"] == "not_run"}
    assert reasons == {"stopped by SIGTERM; with -o FILE what is finished is kept"}


def test_calculations_are_kept_beside_what_is_written() -> None:
    assert calculations_beside(Path("a/energies.csv"), Path("b/known.parquet")) == Path("a/energies.calculations")
    assert calculations_beside(None, Path("b/known.parquet")) == Path("b/known.calculations")
    assert calculations_beside(None, Path("relaxed")) == Path("relaxed.calculations")
    assert calculations_beside(None) is None
    with pytest.raises(SettingsError, match=r"neither \.csv nor \.parquet"):
        calculations_beside(Path("energies.xlsx"))


@pytest.mark.usefixtures("inline")
def test_the_command_line(tmp_path: Path) -> None:
    path = crystal_file(tmp_path / "crystals.parquet", BATCH)
    command = ["relax", str(path), "--oracle", "ase", "--set", "calculator=ase.calculators.emt:EMT", "-q"]
    output = tmp_path / "out.parquet"
    result = CliRunner().invoke(app, [*command, "-o", str(output), "--relaxed", str(tmp_path / "relaxed.extxyz")])
    assert result.exit_code == 0, result.output
    assert pq.read_table(output)["status"].to_pylist() == ["ok"] * len(BATCH)
    assert len(list((tmp_path / "out.calculations").glob("*.parquet"))) == len(BATCH)
    assert [row.id for row in read_crystals(tmp_path / "relaxed.extxyz")] == list(BATCH)
    printed = CliRunner().invoke(app, command)
    assert printed.exit_code == 0
    assert "formation_energy_per_atom" in printed.output
    assert "code_version" not in printed.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--oracle", "quantum"], "known: chgnet, ase, recorded, gpaw, vasp, espresso"),
        (["--functional", "r2scan"], "choose the oracle gpaw or vasp"),
        (["--oracle", "vasp"], "there is no executable 'vasp_std'"),
        (["-o", "energies.xlsx"], "neither .csv nor .parquet"),
        (["--relaxed", "relaxed.docx"], "is of no known format"),
        (["--relaxed", "relaxed.cif"], "holds one crystal and there are 5"),
        (["--references", "nowhere.csv"], "there is no file nowhere.csv"),
    ],
)
def test_wrong_use_is_told_before_anything_runs(tmp_path: Path, arguments: list[str], message: str) -> None:
    path = crystal_file(tmp_path / "crystals.parquet", BATCH)
    result = CliRunner().invoke(app, ["relax", str(path), *arguments, "-q"])
    assert isinstance(result.exception, SettingsError | OracleSetupError)
    assert message in str(result.exception)


LIMIT_S = 120.0


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not true():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_terminated_and_interrupted_it_loses_nothing(tmp_path: Path) -> None:
    """The real command, three times stopped while one crystal is finished and the next keeps its worker."""
    gate, output = tmp_path / "gate", tmp_path / "out.csv"
    path = crystal_file(
        tmp_path / "crystals.parquet", {"cu": BATCH["cu"], "pb": fcc(LEAD, 30.0), "au": fcc(GOLD, 17.0)}
    )
    kept = tmp_path / "out.calculations"
    calculator = f"{Gated.__module__}:{Gated.__name__}"
    command = [sys.executable, "-m", "opengnome", "relax", str(path), "-o", str(output), "-j", "1", "-q"]
    command += ["--oracle", "ase", "--set", f"calculator={calculator}", "--set", f'calculator_options.gate="{gate}"']
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    options = {"calculator": calculator, "calculator_options": {"gate": str(gate)}}
    settings = OracleSettings.model_validate({"name": "ase", **options})
    lead = f"{calculation_key(fcc(LEAD, 30.0), settings)}.parquet"

    def stop(end: Callable[[subprocess.Popen[bytes]], None], returncode: int) -> dict[str, str]:
        """Start, end it while lead is calculated; statuses by id, empty without a table."""
        before = n_starts()
        process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: any(kept.glob("[!.]*.parquet")) and n_starts() > before, process)
            end(process)
            assert process.wait(timeout=LIMIT_S) == returncode
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return statuses()

    def n_starts() -> int:
        return sum(path.stat().st_size for path in kept.glob(f"{lead}.starts"))

    def statuses() -> dict[str, str]:
        if not output.exists():
            return {}
        with output.open() as file:
            return {row["id"]: row["status"] for row in csv.DictReader(file)}

    assert stop(lambda process: os.killpg(process.pid, signal.SIGKILL), -signal.SIGKILL) == {}
    (finished,) = kept.glob("[!.]*.parquet")
    modified = finished.stat().st_mtime_ns
    partial = {"cu": "ok", "pb": "not_run", "au": "not_run"}
    assert stop(lambda process: process.terminate(), EXIT_STOPPED) == partial
    output.unlink()
    assert stop(lambda process: os.killpg(process.pid, signal.SIGINT), EXIT_STOPPED) == partial
    gate.touch()
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert statuses() == dict.fromkeys(partial, "ok")
    assert finished.stat().st_mtime_ns == modified, "it was calculated again"
    assert len(list(kept.iterdir())) == 3
