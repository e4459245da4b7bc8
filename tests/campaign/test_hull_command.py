"""`opengnome hull` on files of every format: answers, options, drawings, and every bad input with its message."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from opengnome.campaign.commands import load_hull
from opengnome.campaign.stability import judge
from opengnome.cli import app
from opengnome.crystals import Composition
from opengnome.errors import HullError, InvalidCrystalError, MissingReferenceError, OpenGnomeError, SettingsError
from opengnome.hull import Entry, Hull
from report.synthetic_campaign import build_campaign

OXIDES = """\
id,formula,energy_per_atom
li,Li,-1.9
fe,Fe,-8.3
o,O2,-4.9
oxide,Li2O,-4.75
hematite,Fe2O3,-7.0
wustite,FeO,-6.9
ferrite,LiFeO2,-6.3
"""


def csv(folder: Path, text: str, name: str = "known.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def reference_hull(text: str = OXIDES) -> Hull:
    rows = [line.split(",") for line in text.splitlines()[1:]]
    return Hull([Entry(i, Composition.from_formula(f), float(e), level="x") for i, f, e in rows])


def test_a_row_per_entry_with_all_answers(tmp_path: Path) -> None:
    rows = judge(csv(tmp_path, OXIDES)).rows
    hull = reference_hull()
    assert [row["id"] for row in rows] == [e.id for e in hull.entries]
    for row, entry in zip(rows, hull.entries, strict=True):
        assert row["status"] == "ok"
        assert row["level"] == "table:known.csv"
        assert row["reduced_formula"] == entry.reduced_formula
        assert row["energy_above_hull"] == pytest.approx(hull.energy_above_hull(entry), abs=1e-12)
        assert row["decomposition_energy"] == pytest.approx(hull.decomposition_energy(entry), abs=1e-12)
        expected = hull.formation_energy_per_atom(entry.composition, entry.energy_per_atom)
        assert row["formation_energy_per_atom"] == pytest.approx(expected, abs=1e-12)
    assert "hematite" in next(row for row in rows if row["id"] == "ferrite")["decomposition_products"]


def test_rejected_rows_keep_their_place_and_do_not_disturb(tmp_path: Path) -> None:
    lines = OXIDES.splitlines()
    lines.insert(3, "bad,LiQ,-3")
    lines.insert(6, "nan,Li2O2,nan")
    rows = judge(csv(tmp_path, "\n".join(lines))).rows
    assert [row["status"] for row in rows] == [
        "ok",
        "ok",
        "invalid_formula",
        "ok",
        "ok",
        "not_finite",
        "ok",
        "ok",
        "ok",
    ]
    clean = {row["id"]: row for row in judge(csv(tmp_path, OXIDES)).rows}
    assert all(row == clean[row["id"]] for row in rows if row["status"] == "ok")
    assert rows[2].keys() == rows[0].keys()


def test_one_system_only(tmp_path: Path) -> None:
    rows = judge(csv(tmp_path, OXIDES), system="O-Li").rows
    assert [row["id"] for row in rows] == ["li", "o", "oxide"]
    with pytest.raises(SettingsError, match="no entry in the chemical system Na-Cl"):
        judge(csv(tmp_path, OXIDES), system="Na-Cl")
    with pytest.raises(SettingsError, match=r"known\.csv has no entry$"):
        judge(csv(tmp_path, OXIDES.splitlines()[0] + "\n"))
    with pytest.raises(InvalidCrystalError, match="'Xx' is not an element"):
        judge(csv(tmp_path, OXIDES), system="Li-Xx")


# --- levels, corrections, kinds -----------------------------------------------------------------------------------


def test_every_level_has_its_own_hull(tmp_path: Path) -> None:
    text = "id,formula,energy_per_atom,level\n" + "".join(
        f"{line},{level}\n" for level in ("PBE", "r2SCAN") for line in OXIDES.splitlines()[1:]
    )
    text = text.replace("wustite,FeO,-6.9,r2SCAN", "wustite,FeO,-7.9,r2SCAN")
    judged = judge(csv(tmp_path, text))
    assert set(judged.hulls) == {"PBE", "r2SCAN"}
    alone = {row["id"]: row for row in judge(csv(tmp_path, OXIDES)).rows}
    for row in judged.rows[:7]:
        assert row["energy_above_hull"] == alone[row["id"]]["energy_above_hull"]
        assert row["level"] == "PBE"
    assert judged.rows[12]["energy_above_hull"] == 0.0
    assert judged.rows[13]["energy_above_hull"] > alone["ferrite"]["energy_above_hull"]
    with pytest.raises(SettingsError, match=r"there are 2, of the levels \['PBE', 'r2SCAN'\]"):
        judged.only_hull()


def test_schemes_of_corrections_are_not_mixed(tmp_path: Path) -> None:
    text = "formula,energy_per_atom,correction_per_atom,correction_scheme\nLi,-1.9,0,MP2020\nO2,-4.9,0,MIT\n"
    with pytest.raises(SettingsError, match=r"'MP2020' \(e\.g\. known-0\), 'MIT' \(e\.g\. known-1\)"):
        judge(csv(tmp_path, text))
    raw = judge(csv(tmp_path, text), correction="none")
    assert [row["status"] for row in raw.rows] == ["ok", "ok"]


def test_the_judged_are_corrected_as_those_they_are_judged_by(tmp_path: Path) -> None:
    head, *rows = OXIDES.splitlines()
    known = csv(tmp_path, "\n".join([f"{head},correction_scheme", *(f"{row},MP2020 (in the energy)" for row in rows)]))
    raw = csv(tmp_path, "id,formula,energy_per_atom\nx,Li2O2,-4.6\n", "raw.csv")
    with pytest.raises(SettingsError, match=r"'none' \(e\.g\. x\), 'MP2020' \(e\.g\. li\)"):
        judge(raw, against=[known], level="PBE")
    same = csv(tmp_path, "id,formula,energy_per_atom,correction_scheme\nx,Li2O2,-4.6,MP2020\n", "same.csv")
    assert judge(same, against=[known], level="PBE").rows[0]["status"] == "ok"


def test_formation_energies_of_no_stated_scheme_are_compared(tmp_path: Path) -> None:
    document = {"material_id": "mp-1", "formula_pretty": "Li2O", "formation_energy_per_atom": -2.0}
    known = csv(tmp_path, json.dumps([document]), "mp.json")
    predicted = csv(tmp_path, "id,formula,formation_energy_per_atom\nx,Li2O2,-1.6\n", "predicted.csv")
    (row,) = judge(predicted, against=[known], level="PBE", energy="formation").rows
    assert row["energy_above_hull"] == pytest.approx(-1.6 + 2.0 * 3 / 4)


def test_a_campaign_judges_and_is_judged(tmp_path: Path) -> None:
    campaign = build_campaign(tmp_path / "campaign")
    hull = load_hull(campaign)
    rows = {row["id"]: row for row in judge(campaign).rows}
    assert set(rows) == {e.id for e in hull.entries if not e.id.startswith("reference-")}
    for entry in hull.entries:
        if entry.id in rows:
            assert rows[entry.id]["energy_above_hull"] == pytest.approx(hull.energy_above_hull(entry), abs=1e-12)
    new = csv(tmp_path, "id,formula,formation_energy_per_atom\nx,NaMgCl3,-2.4\n", "new.csv")
    (row,) = judge(new, against=[campaign], level=hull.level).rows
    entry = Entry("x", Composition.from_formula("NaMgCl3"), -2.4, level=hull.level)
    assert row["energy_above_hull"] == pytest.approx(hull.energy_above_hull(entry), abs=1e-12)


CORRECTED = """\
id,formula,energy,correction,run_type
li,Li1,-1.9,0,GGA
o,O2,-9.8,0,GGA
fe,Fe1,-8.3,0,GGA
oxide,Li2O1,-13.6,-0.5,GGA
hematite,Fe4O6,-67.0,-9.0,GGA+U
"""


def test_corrections_of_the_file_none_and_mp2020(tmp_path: Path) -> None:
    path = csv(tmp_path, CORRECTED)
    given = {row["id"]: row for row in judge(path).rows}
    assert given["oxide"]["correction_per_atom"] == pytest.approx(-0.5 / 3)
    assert given["oxide"]["correction_scheme"] == "as given"
    none = {row["id"]: row for row in judge(path, correction="none").rows}
    assert none["oxide"]["formation_energy_per_atom"] == pytest.approx((-13.6 + 2 * 1.9 + 4.9) / 3)
    assert "correction_per_atom" not in none["oxide"]
    mp2020 = {row["id"]: row for row in judge(path, correction="mp2020", trust_settings=True).rows}
    # pymatgen's MP2020Compatibility.yaml: oxide -0.687 eV per O, Fe -2.256 eV per Fe in oxides with U.
    assert mp2020["oxide"]["correction_per_atom"] == pytest.approx(-0.687 / 3)
    assert mp2020["hematite"]["correction_per_atom"] == pytest.approx((-0.687 * 6 - 2.256 * 4) / 10)
    assert mp2020["oxide"]["correction_scheme"].startswith("MP2020")


def test_what_mp2020_cannot_correct_is_a_row_with_the_reason(tmp_path: Path) -> None:
    text = CORRECTED + "scan,Li2O2,-20.0,0,R2SCAN\n"
    rows = judge(csv(tmp_path, text), correction="mp2020", trust_settings=True, level="x").rows
    assert [(r["id"], r["status"]) for r in rows if r["status"] != "ok"] == [("scan", "not_corrected")]
    assert "R2SCAN" in rows[-1]["reason"]
    untrusted = judge(csv(tmp_path, CORRECTED), correction="mp2020").rows
    assert {row["status"] for row in untrusted} == {"not_corrected"}
    assert "potentials" in untrusted[0]["reason"]


def test_corrections_that_do_not_fit(tmp_path: Path) -> None:
    formation = csv(tmp_path, "formula,formation_energy_per_atom\nLi2O,-2\n", "f.csv")
    with pytest.raises(SettingsError, match="holds formation energies, for which it is too late"):
        judge(formation, correction="mp2020")
    with pytest.raises(SettingsError, match="no correction scheme 'mp1066'"):
        judge(formation, correction="mp1066")
    shifts = csv(tmp_path, '{"name": "mine", "version": "1", "shifts": {"Li": 0.5}}', "mine.json")
    rows = {r["id"]: r for r in judge(csv(tmp_path, OXIDES), correction=str(shifts)).rows}
    assert rows["li"]["correction_per_atom"] == 0.5
    assert rows["oxide"]["correction_per_atom"] == pytest.approx(1 / 3)
    with pytest.raises(HullError, match="cannot read the shifts"):
        judge(csv(tmp_path, OXIDES), correction=str(tmp_path / "nowhere.json"))


def test_corrected_energies_without_raw_ones_are_not_corrected_again(tmp_path: Path) -> None:
    text = ",Composition,MaterialId,NSites,Corrected Energy\n0,Li2,a,2,-3.8\n1,O2,b,2,-9.8\n"
    rows = judge(csv(tmp_path, text), correction="none").rows
    assert {row["status"] for row in rows} == {"not_corrected"}
    assert "only the energy corrected by MP2020 is known" in rows[0]["reason"]


# --- references ---------------------------------------------------------------------------------------------------


def test_missing_elements_are_one_error_that_names_them_and_the_remedies(tmp_path: Path) -> None:
    compounds = csv(tmp_path, "id,formula,energy_per_atom\na,Li2O,-4.75\nb,FeO,-6.9\n")
    with pytest.raises(MissingReferenceError) as caught:
        judge(compounds)
    for words in ("Li, O, Fe", "--references FILE", "--energy formation", "--system"):
        assert words in str(caught.value)
    elements = csv(tmp_path, '{"Li": -1.9, "O": -4.9}', "elements.json")
    with pytest.raises(MissingReferenceError, match=r"in .*elements.json or the table for Fe at"):
        judge(compounds, references=elements)
    rows = judge(compounds, references=elements, system="Li-O").rows
    assert [row["id"] for row in rows] == ["a"]
    assert rows[0]["formation_energy_per_atom"] == pytest.approx(-4.75 + (2 * 1.9 + 4.9) / 3)
    table = csv(tmp_path, OXIDES, "elements.csv")
    assert [row["status"] for row in judge(compounds, references=table).rows] == ["ok", "ok"]


def test_references_are_not_for_formation_energies(tmp_path: Path) -> None:
    elements = csv(tmp_path, '{"Li": -1.9, "O": -4.9}', "elements.json")
    formation = csv(tmp_path, "formula,formation_energy_per_atom\nLi2O,-2\n")
    with pytest.raises(SettingsError, match="formation energies, which have the elements at zero; leave out"):
        judge(formation, references=elements)


def test_formation_energies_need_no_elements(tmp_path: Path) -> None:
    rows = judge(csv(tmp_path, "id,formula,formation_energy_per_atom\na,Li2O,-2.0\nb,Li2O2,-1.6\n")).rows
    assert [row["id"] for row in rows] == ["a", "b"]
    assert rows[0]["decomposition_energy"] == pytest.approx(-2.0 + 1.6 * 2 / 3)


# --- against other files ------------------------------------------------------------------------------------------


def test_candidates_against_the_hull_of_another_file(tmp_path: Path) -> None:
    candidates = csv(tmp_path, "id,formula,energy_per_atom\nnew,Li5FeO4,-5.9\noxide,Li2O,-4.75\n", "new.csv")
    known = csv(tmp_path, OXIDES)
    with pytest.raises(SettingsError, match=r"\['table:new.csv'\] cannot be judged .*\['table:known.csv'\].*--level"):
        judge(candidates, against=[known])
    new, oxide = judge(candidates, against=[known], level="PBE").rows
    hull = reference_hull()
    entry = Entry("new", Composition.from_formula("Li5FeO4"), -5.9, level="x")
    assert new["energy_above_hull"] == pytest.approx(hull.energy_above_hull(entry), abs=1e-12)
    assert new["energy_above_hull"] < 0
    # The oxide does not compete with itself, and the candidate not with it.
    assert oxide["decomposition_energy"] == pytest.approx(hull.decomposition_energy(hull.entries[3]), abs=1e-12)


def test_what_the_hull_lacks_is_listed(tmp_path: Path) -> None:
    known = csv(tmp_path, OXIDES + "bad,Li2O2,nan\n")
    candidates = csv(tmp_path, "id,formula,energy_per_atom\nnew,Li5FeO4,-5.9\n", "new.csv")
    ((source, row),) = judge(candidates, against=[known], level="PBE").unused
    assert (source, row.id, row.status) == ("known.csv", "bad", "not_finite")
    code, output = run(candidates, "--against", known, "--level", "PBE", "-o", tmp_path / "out.csv")
    assert code == 0
    assert "known.csv: not part of the hull: bad: not_finite: the energy is nan" in output
    assert judge(known).unused == ()


def test_several_files_make_one_hull(tmp_path: Path) -> None:
    lines = OXIDES.splitlines(keepends=True)
    one = csv(tmp_path, "".join(lines[:5]), "one.csv")
    two = csv(tmp_path, lines[0] + "".join(lines[4:]), "two.csv")  # Li2O is in both
    together = judge(csv(tmp_path, OXIDES), against=[one, two], level="PBE").rows
    alone = judge(csv(tmp_path, OXIDES), level="PBE").rows
    assert together == alone


def test_both_tables_of_the_gnome_release_make_one_hull(tmp_path: Path) -> None:
    stable = csv(
        tmp_path,
        ",Composition,MaterialId,NSites,UnCorrected Energy,Corrected Energy,Formation Energy Per Atom\n"
        "0,Li2O2,new,4,-18.0,-19.4,-1.0\n",
        "stable_materials_summary.csv",
    )
    external = csv(
        tmp_path,
        ",Composition,MaterialId,NSites,Corrected Energy,Decomposition Energy Per Atom All\n"
        "0,Li2,mp-1,2.0,-3.8,0.0\n1,O2,mp-2,2.0,-9.8,0.0\n2,Li4O2,mp-3,6.0,-29.0,0.0\n",
        "external_materials_summary.csv",
    )
    with pytest.raises(MissingReferenceError, match="Li, O at level 'GNoME PBE'"):
        judge(stable)
    (row,) = judge(stable, against=[stable, external]).rows
    assert row["status"] == "ok"
    assert row["energy_above_hull"] == 0.0
    # Against 3/4 Li2O + 1/4 O.
    assert row["decomposition_energy"] == pytest.approx(-19.4 / 4 - (0.75 * -29.0 / 6 + 0.25 * -4.9))
    assert (row["correction_per_atom"], row["correction_scheme"]) == (pytest.approx(-0.35), "MP2020")


def test_an_id_of_another_phase_is_refused(tmp_path: Path) -> None:
    candidates = csv(tmp_path, "id,formula,energy_per_atom\noxide,Li2O2,-4.6\nnew,Li2O2,-4.6\n", "new.csv")
    first, second = judge(candidates, against=[csv(tmp_path, OXIDES)], level="PBE").rows
    assert (first["status"], second["status"]) == ("id_of_another", "ok")
    assert "'oxide' is that of another phase, Li2O," in first["reason"]


def test_two_energies_of_one_id_in_two_files(tmp_path: Path) -> None:
    other = csv(tmp_path, "id,formula,energy_per_atom\noxide,Li2O,-4.9\n", "other.csv")
    with pytest.raises(HullError, match="two entries have the id 'oxide'"):
        judge(csv(tmp_path, OXIDES), against=[csv(tmp_path, OXIDES), other], level="PBE")


def test_total_and_formation_energies_do_not_meet(tmp_path: Path) -> None:
    formation = csv(tmp_path, "formula,formation_energy_per_atom\nLi2O,-2\n", "f.csv")
    with pytest.raises(SettingsError, match=r"f.csv holds formation energies and known.csv total energies"):
        judge(formation, against=[csv(tmp_path, OXIDES)], level="PBE")


def test_a_level_without_a_hull_is_a_row_with_the_reason(tmp_path: Path) -> None:
    text = "id,formula,energy_per_atom,level\na,Li2O,-4.7,PBE\nb,Li2O,-4.9,r2SCAN\n"
    a, b = judge(csv(tmp_path, text, "new.csv"), against=[csv(tmp_path, OXIDES)], level="PBE").rows
    assert (a["status"], b["status"]) == ("ok", "wrong_level")
    assert "of level 'r2SCAN' and there are hulls of ['PBE'] only" in b["reason"]


def test_elements_that_the_other_file_lacks(tmp_path: Path) -> None:
    known = csv(tmp_path, "formula,formation_energy_per_atom\nLi2O,-2\n")
    new = csv(tmp_path, "formula,formation_energy_per_atom\nNa2O,-1.4\n", "new.csv")
    with pytest.raises(MissingReferenceError, match=r"for Na at level 'PBE': .*add the elements there with energy 0"):
        judge(new, against=[known], level="PBE")


def test_hulls_of_files_for_predictions(tmp_path: Path) -> None:
    assert len(load_hull(csv(tmp_path, OXIDES))) == 7
    told: list[str] = []
    assert len(load_hull(csv(tmp_path, f"{OXIDES}no,Qq2O,-1.0\n", "bad.csv"), tell=told.append)) == 7
    (message,) = told
    assert "bad.csv: not part of the hull: no: " in message
    assert "'Qq' is not an element symbol" in message
    two = csv(tmp_path, "formula,energy_per_atom,level\nLi,-1,PBE\nLi,-2,SCAN\n", "two.csv")
    with pytest.raises(SettingsError, match=r"levels \['PBE', 'SCAN'\], a hull has one"):
        load_hull(two)


# --- the command --------------------------------------------------------------------------------------------------


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["hull", *map(str, arguments)])
    if isinstance(result.exception, OpenGnomeError):
        return 2, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_table_out(tmp_path: Path) -> None:
    path = csv(tmp_path, OXIDES)
    assert run(path, "-o", tmp_path / "out.csv")[0] == 0
    header, first, *_ = (tmp_path / "out.csv").read_text().splitlines()
    assert header == (
        "id,reduced_formula,status,reason,formation_energy_per_atom,energy_above_hull,decomposition_energy,"
        "decomposition_products,level"
    )
    assert first.startswith("li,Li,ok,,0.0,0.0,0.0,")
    assert run(path, "-o", tmp_path / "out.parquet")[0] == 0
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 7
    code, output = run(path, "--json", "--system", "Li-O")
    assert code == 0
    assert [json.loads(line)["id"] for line in output.splitlines()] == ["li", "o", "oxide"]


def test_a_rejected_row_makes_exit_status_1_and_is_listed(tmp_path: Path) -> None:
    code, output = run(csv(tmp_path, OXIDES + "bad,LiQ,-1\n"), "-o", tmp_path / "out.csv")
    assert code == 1
    assert "bad: invalid_formula: 'Q' is not an element symbol" in output


def test_all_options_reach_the_question(tmp_path: Path) -> None:
    candidates = csv(tmp_path, "name,formula,e\nx,Li2O2,-1.5\n", "new.csv")
    code, output = run(
        candidates, "--against", csv(tmp_path, "formula,e\nLi2O,-2.0\n"), "--level", "PBE",
        "--energy", "e:formation:atom", "--format", "table", "--json",
    )  # fmt: skip
    row = json.loads(output)
    assert (code, row["level"]) == (0, "PBE")
    # Li2O2 against 3/4 Li2O + 1/4 O by atoms.
    assert row["energy_above_hull"] == pytest.approx(-1.5 + 2.0 * 3 / 4)


@pytest.mark.parametrize("suffix", [".svg", ".png", ".html"])
def test_drawings_of_the_command(tmp_path: Path, suffix: str) -> None:
    plot, potentials = tmp_path / f"hull{suffix}", tmp_path / f"potentials{suffix}"
    code, _ = run(
        csv(tmp_path, OXIDES), "--system", "Li-Fe-O", "--plot", plot, "--chemical-potentials", potentials,
        "-o", tmp_path / "out.csv",
    )  # fmt: skip
    assert code == 0
    start = {".svg": b"<?xml", ".png": b"\x89PNG", ".html": b"<!DOCTYPE html>"}[suffix]
    assert plot.read_bytes().startswith(start)
    assert potentials.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plot", "{tmp}/hull.pdf"], "none of .svg, .png, .html"),
        (["--plot", "{tmp}/hull.svg", "--system", "Li"], "Li has 1 elements; a hull is drawn of two to four"),
        (["--chemical-potentials", "{tmp}/c.svg", "--system", "Li"], "drawn of two or three"),
        (["--format", "excel"], "the format 'excel' is unknown"),
        (["--references", "{tmp}/none.json"], "there is no file"),
        (["--correction", "MIT"], "no correction scheme 'MIT'"),
        (["--energy", "e"], "does not say what it holds"),
        (["-o", "{tmp}/out.xlsx"], "neither .csv nor .parquet"),
    ],
)
def test_wrong_use_is_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    code, output = run(csv(tmp_path, OXIDES), *(option.format(tmp=tmp_path) for option in options))
    assert code == 2
    assert message in output
    assert "\n" not in output


@pytest.mark.parametrize(
    "system",
    ["Ca-C-O", "Cu-Zn-O", "Li-Co-O", "Li-Mn-O", "Li-Ni-O", "Li-P-S", "Li-Ti-O", "Mg-Si-O", "Ti-N-O"],
)
def test_reference_distances_of_the_public_data(shared_data: Path, system: str) -> None:
    path = shared_data / "hull_entries" / f"alexandria_{system}.parquet"
    reference = pq.read_table(path, columns=["e_above_hull"]).to_pydict()["e_above_hull"]
    assert [row["energy_above_hull"] for row in judge(path).rows] == pytest.approx(reference, abs=1e-6)


@pytest.mark.parametrize("system", ["Ba-Ti-O", "Fe-Cr-O", "Na-Fe-O"])
def test_references_that_lie_below_are_of_a_hull_without_some_entries(shared_data: Path, system: str) -> None:
    """Of these three files some reference distances are smaller than the file's own entries allow, none is larger."""
    path = shared_data / "hull_entries" / f"alexandria_{system}.parquet"
    reference = pq.read_table(path, columns=["e_above_hull"]).to_pydict()["e_above_hull"]
    distances = [row["energy_above_hull"] for row in judge(path).rows]
    assert all(found >= expected - 1e-6 for found, expected in zip(distances, reference, strict=True))


def test_its_own_output_is_not_corrected_again(tmp_path: Path) -> None:
    text = (
        "id,formula,energy_per_atom,correction_per_atom,correction_scheme\n"
        "a,Li2O,-4.5,-0.2,X\nb,Li,-2,0,X\nc,O,-5,0,X\nd,Li2O2,-4.4,-0.3,X\n"
    )
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    for source, target in ((csv(tmp_path, text), first), (first, second)):
        assert CliRunner().invoke(app, ["hull", str(source), "-o", str(target)]).exit_code == 0
    before, after = judge(csv(tmp_path, text)).rows, judge(first).rows
    for name in ("formation_energy_per_atom", "energy_above_hull", "decomposition_energy"):
        assert [row[name] for row in after] == pytest.approx([row[name] for row in before], abs=1e-9)
    assert second.exists()


def test_two_files_of_one_name_are_not_one_table(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        csv(tmp_path / folder, "formula,energy_per_atom\nLi2O,-4.5\nLi,-2\nO,-5\n", "entries.csv")
    with pytest.raises(SettingsError, match="rename one of the files"):
        judge(tmp_path / "b" / "entries.csv", against=[tmp_path / "a" / "entries.csv"])


def test_one_huge_amount_is_one_refused_row(tmp_path: Path) -> None:
    rows = judge(csv(tmp_path, OXIDES + "huge,Li99999999999999999999O,-3\n")).rows
    assert [row["status"] for row in rows] == ["ok"] * 7 + ["invalid_formula"]
    assert "give that of one cell" in rows[-1]["reason"]


def test_a_refused_reference_is_named(tmp_path: Path) -> None:
    table = csv(tmp_path, "formula,energy_per_atom,level\nLi2O,-4.5,PBE\n")
    references = csv(tmp_path, "id,formula,energy_per_atom,level\nli,Li,nan,PBE\no,O2,-4.9,PBE\n", "refs.csv")
    with pytest.raises(SettingsError, match="the reference li"):
        judge(table, references=references)


def test_a_drawing_that_fails_does_not_cost_the_answers(tmp_path: Path) -> None:
    elements = "".join(f"{s},{s},0\n" for s in ("Li", "Na", "K", "Rb", "Cs"))
    table, output = csv(tmp_path, "id,formula,energy_per_atom\n" + elements), tmp_path / "out.csv"
    result = CliRunner().invoke(app, ["hull", str(table), "--plot", str(tmp_path / "x.svg"), "-o", str(output)])
    assert result.exit_code != 0
    assert output.exists()
