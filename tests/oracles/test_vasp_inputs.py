import warnings

import numpy as np
import pytest
from fake_potcars import write_potcar

from opengnome.crystals import Crystal, CrystalTable, with_atomic_numbers
from opengnome.errors import OracleSetupError, SettingsError
from opengnome.oracles.vasp_inputs import (
    PoscarOrder,
    check_potentials,
    is_hexagonal,
    level_name,
    plan_steps,
    potentials_root,
    vasp_input,
)
from opengnome.oracles.vasp_settings import VaspSettings
from opengnome.settings import validate

pytest.importorskip("pymatgen.io.vasp", reason="the VASP oracle needs the full pymatgen")
pytestmark = pytest.mark.filterwarnings("ignore::pymatgen.io.vasp.inputs.UnknownPotcarWarning")


@pytest.fixture(scope="module")
def potcars(tmp_path_factory):
    root = tmp_path_factory.mktemp("potcars")
    for symbol in ("Na_pv", "Cl", "Fe_pv", "O", "Zn", "S", "Li_sv", "Yb_2"):
        write_potcar(root, symbol, "PBE")
    for symbol in ("Na_pv", "Cl", "Fe_pv", "O", "Li_sv", "W_sv", "Yb_3"):
        write_potcar(root, symbol, "PBE_54")
    return root


@pytest.fixture(scope="module")
def iron_oxide() -> Crystal:
    """FeO in rock salt, the atoms of the primitive cell in the order O, Fe."""
    lattice = 2.15 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Crystal(lattice, np.array([[0.5, 0.5, 0.5], [0, 0, 0]]), np.array([8, 26]))


def written(crystal, step, settings, *, relax_cell=True, band_gap=None):
    poscar = PoscarOrder.of(crystal).to_poscar(crystal)
    return vasp_input(poscar, step, settings, relax_cell=relax_cell, band_gap=band_gap)


def test_the_steps_of_each_functional():
    names = [step.name for step in plan_steps(VaspSettings())]
    assert names == ["relax1", "relax2", "static"]
    r2scan = plan_steps(VaspSettings(functional="r2scan"))
    assert [(s.name, s.functional, s.counts) for s in r2scan] == [
        ("pbe-relax", "pbe+u", False),
        ("relax", "r2scan", True),
        ("static", "r2scan", True),
    ]
    assert [s.name for s in plan_steps(VaspSettings(n_relaxations=1, static=False))] == ["relax1"]


def test_levels_differ_exactly_where_energies_do():
    plain = level_name(VaspSettings())
    assert plain == "vasp-pbe+u-mp"
    neutral = {"NCORE": 4, "KPAR": 2, "LCHARG": True, "NELM": 200, "ALGO": "Normal"}
    assert level_name(VaspSettings(incar=neutral, max_corrections=1)) == plain
    others = [
        VaspSettings(preset="gnome"),
        VaspSettings(functional="pbe"),
        VaspSettings(functional="r2scan"),
        VaspSettings(static=False),
        VaspSettings(incar={"ENCUT": 600}),
        VaspSettings(incar={"ENCUT": 700}),
    ]
    assert len({plain, *map(level_name, others)}) == len(others) + 1


def test_materials_project_inputs(potcars, iron_oxide):
    settings = VaspSettings(potcar_dir=potcars, incar={"NCORE": 4})
    relax, _, static = plan_steps(settings)
    inputs = written(iron_oxide, relax, settings)
    incar = inputs["INCAR"]
    assert inputs["POSCAR"].site_symbols == ["Fe", "O"]
    assert (incar["ENCUT"], incar["NSW"], incar["ISIF"], incar["IBRION"], incar["NCORE"]) == (520, 99, 3, 2, 4)
    assert incar["EDIFF"] == pytest.approx(5e-5 * 2)
    assert (incar["LDAUU"], incar["MAGMOM"]) == ([5.3, 0], [5, 0.6])  # Dudarev's U of Fe; ferromagnetic
    assert inputs["POTCAR"].symbols == ["Fe_pv", "O"]
    last = written(iron_oxide, static, settings)
    assert (last["INCAR"]["NSW"], last["INCAR"]["ISMEAR"]) == (0, -5)
    assert np.prod(last["KPOINTS"].kpts[0]) > np.prod(inputs["KPOINTS"].kpts[0])
    assert written(iron_oxide, relax, settings, relax_cell=False)["INCAR"]["ISIF"] == 2


def test_files_that_nobody_reads_are_not_written(potcars, iron_oxide):
    """pymatgen's sets ask for densities and potentials, hundreds of MB per crystal."""
    big = ("LAECHG", "LCHARG", "LELF", "LVHAR", "LVTOT", "LWAVE")
    for functional in ("pbe+u", "r2scan"):
        settings = VaspSettings(potcar_dir=potcars, functional=functional)
        for step in plan_steps(settings):
            incar = written(iron_oxide, step, settings)["INCAR"]
            assert [incar[tag] for tag in big] == [False] * 6
    asked = VaspSettings(potcar_dir=potcars, incar={"LCHARG": True})
    assert written(iron_oxide, plan_steps(asked)[-1], asked)["INCAR"]["LCHARG"] is True


def test_what_a_step_takes_from_the_one_before(potcars, iron_oxide):
    """The moments: static calculations and r2SCAN; the smearing of metals: the second relaxation, unless it is set."""
    moments = np.array([3.7, 0.1])  # Fe, O
    poscar = PoscarOrder.of(iron_oxide).to_poscar(iron_oxide)

    def incar(step, settings, gap):
        return vasp_input(poscar, step, settings, relax_cell=True, band_gap=gap, moments=moments)["INCAR"]

    settings = VaspSettings(potcar_dir=potcars)
    _, second, static = plan_steps(settings)
    assert [incar(second, settings, gap)["ISMEAR"] for gap in (None, 0.0, 1.2)] == [-5, 2, -5]
    assert (incar(second, settings, 0.0)["SIGMA"], incar(static, settings, 0.0)["ISMEAR"]) == (0.2, -5)
    assert incar(second, settings, 0.0)["MAGMOM"] == [5, 0.6]
    assert incar(static, settings, 0.0)["MAGMOM"] == [3.7, 0.1]
    own = VaspSettings(potcar_dir=potcars, incar={"ISMEAR": 1})
    assert incar(second, own, 0.0)["ISMEAR"] == 1
    r2scan = VaspSettings(potcar_dir=potcars, functional="r2scan")
    assert [incar(step, r2scan, 0.0)["MAGMOM"][0] for step in plan_steps(r2scan)] == [5, 3.7, 3.7]


def test_u_is_for_the_oxides_of_pbe_plus_u_only(potcars, iron_oxide):
    settings = VaspSettings(potcar_dir=potcars, functional="pbe")
    incar = written(iron_oxide, plan_steps(settings)[0], settings)["INCAR"]
    assert (incar["LDAU"], "LDAUU" in incar) == (False, False)
    chloride = with_atomic_numbers(iron_oxide, [17, 26])
    settings = VaspSettings(potcar_dir=potcars)
    assert "LDAUU" not in written(chloride, plan_steps(settings)[0], settings)["INCAR"]


def test_r2scan_takes_spacing_and_smearing_from_the_gap(potcars, iron_oxide):
    settings = VaspSettings(potcar_dir=potcars, functional="r2scan")
    pbe, relax, static = plan_steps(settings)
    first = written(iron_oxide, pbe, settings)
    assert ("METAGGA" in first["INCAR"], first["INCAR"]["LDAUU"]) == (False, [5.3, 0])
    assert {potential.TITEL.split()[-1] for potential in first["POTCAR"]} == {"01Jan2010"}  # release 5.4
    metal = written(iron_oxide, relax, settings, band_gap=0.0)["INCAR"]
    assert (metal["METAGGA"], metal["ENCUT"], metal["ISMEAR"]) == ("R2scan", 680, 2)
    assert metal["KSPACING"] == 0.22
    insulator = written(iron_oxide, static, settings, band_gap=3.0)
    assert insulator["INCAR"]["KSPACING"] > 0.22
    assert (insulator["INCAR"]["ISMEAR"], insulator["INCAR"]["NSW"], insulator["KPOINTS"]) == (-5, 0, None)


def test_newer_potentials_of_gnome(potcars, rock_salt):
    for preset, dates in (("mp", ["01Jan2000", "01Jan2000"]), ("gnome", ["01Jan2010", "01Jan2000"])):
        settings = VaspSettings(potcar_dir=potcars, preset=preset)
        potcar = written(rock_salt, plan_steps(settings)[0], settings)["POTCAR"]
        assert potcar.symbols == ["Na_pv", "Cl"]
        assert [potential.TITEL.split()[-1] for potential in potcar] == dates


def test_gamma_centred_meshes_of_gnome(potcars):
    """Rhombohedral ZnS with an even mesh: pymatgen shifts it off Gamma, GNoME's rule does not."""
    a, c = 4.4, 32.6  # three of the layers of a 9R stacking: not cubic by accident
    lattice = np.array([[a / 2, a / 12**0.5, c / 9], [-a / 2, a / 12**0.5, c / 9], [0, -a / 3**0.5, c / 9]])
    crystal = Crystal(lattice, np.array([[0.0] * 3, [0.22] * 3]), np.array([30, 16]))
    assert is_hexagonal(crystal)
    styles = {}
    for preset in ("mp", "gnome"):
        settings = VaspSettings(potcar_dir=potcars, preset=preset)
        kpoints = written(crystal, plan_steps(settings)[0], settings)["KPOINTS"]
        assert np.all(np.array(kpoints.kpts[0]) % 2 == 0)
        styles[preset] = kpoints.style.name
    assert styles == {"mp": "Monkhorst", "gnome": "Gamma"}


def test_a_cubic_cell_is_not_hexagonal(rock_salt):
    assert not is_hexagonal(rock_salt)


def test_orders_are_undone():
    """A left-handed cell with mixed elements: the POSCAR has the same atoms in space, sorted, right-handed."""
    rng = np.random.default_rng(5)
    lattice = 4.0 * np.eye(3) + rng.normal(scale=0.3, size=(3, 3))
    lattice[2] *= -1.0
    crystal = Crystal(lattice, rng.random((6, 3)), np.array([8, 3, 8, 26, 3, 26]))
    order = PoscarOrder.of(crystal)
    poscar = order.to_poscar(crystal)
    assert np.linalg.det(poscar.lattice) > 0
    assert poscar.symbols == ("Li", "Li", "Fe", "Fe", "O", "O")
    np.testing.assert_allclose(poscar.positions[order.back], crystal.positions, atol=1e-12)
    np.testing.assert_array_equal(poscar.atomic_numbers[order.back], crystal.atomic_numbers)
    np.testing.assert_array_equal(poscar.lattice[order.vectors], crystal.lattice)


def test_every_missing_potential_is_named(potcars):
    settings = VaspSettings(potcar_dir=potcars, preset="gnome")
    check_potentials(["Li", "Na", "Cl", "Fe", "O"], settings)
    with pytest.raises(OracleSetupError, match=r"no POTCAR for Ge_d of PBE_54, K_sv of PBE, Mg_pv of PBE_54 \("):
        check_potentials(["Na", "Mg", "Ge", "K"], settings)
    check_potentials(["Yb", "W"], VaspSettings(potcar_dir=potcars, functional="r2scan"))
    with pytest.raises(OracleSetupError, match="no POTCAR for W_pv of PBE "):
        check_potentials(["Yb", "W"], VaspSettings(potcar_dir=potcars))


def test_where_potentials_are_looked_for(potcars, tmp_path, monkeypatch):
    from pymatgen.core import SETTINGS

    monkeypatch.delitem(SETTINGS, "PMG_VASP_PSP_DIR", raising=False)
    with pytest.raises(OracleSetupError, match=r"come with the VASP licence.*vasp.potcar_dir, or PMG_VASP_PSP_DIR"):
        potentials_root(VaspSettings())
    with pytest.raises(OracleSetupError, match=r"nowhere does not exist; set vasp\.potcar_dir"):
        potentials_root(VaspSettings(potcar_dir=tmp_path / "nowhere"))
    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_DIR", str(potcars))
    assert potentials_root(VaspSettings()) == potcars
    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_SUB_DIRS", {"PBE": "my_pbe"})
    (tmp_path / "my_pbe" / "O").mkdir(parents=True)
    (potcars / "POT_GGA_PAW_PBE" / "POTCAR.O").rename(tmp_path / "my_pbe" / "O" / "POTCAR")
    try:
        check_potentials(["O"], VaspSettings(potcar_dir=tmp_path))
    finally:
        (tmp_path / "my_pbe" / "O" / "POTCAR").rename(potcars / "POT_GGA_PAW_PBE" / "POTCAR.O")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"exchange": "CA"}, "with LEXCH = CA, must be 'Cl' with LEXCH = PE"),
        ({"title": "F"}, "holds the potential 'F'"),
    ],
)
def test_a_potential_of_another_kind_is_refused(tmp_path, rock_salt, wrong, message):
    write_potcar(tmp_path, "Na_pv")
    write_potcar(tmp_path, "Cl", **wrong)
    settings = VaspSettings(potcar_dir=tmp_path)
    with pytest.raises(OracleSetupError, match=message):
        written(rock_salt, plan_steps(settings)[0], settings)


def test_a_damaged_potential_is_refused(tmp_path, rock_salt):
    write_potcar(tmp_path, "Na_pv")
    write_potcar(tmp_path, "Cl").write_text("PAW_PBE Cl\n")
    settings = VaspSettings(potcar_dir=tmp_path)
    with pytest.raises(OracleSetupError, match=r"POTCAR\.Cl is not a readable POTCAR"):
        written(rock_salt, plan_steps(settings)[0], settings)


def test_pymatgens_advice_against_its_own_protocol_is_not_repeated(potcars, iron_oxide):
    settings = VaspSettings(potcar_dir=potcars, functional="r2scan")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        written(iron_oxide, plan_steps(settings)[0], settings)
    assert {type(warning.message).__name__ for warning in caught} <= {"UnknownPotcarWarning"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"incar": {"encut": 600}}, "write 'ENCUT'"),
        ({"incar": {"ISIF": 2}}, "ISIF is decided by functional, relax_cell"),
        ({"command": " "}, "a command must not be empty"),
        ({"command": 'mpirun "vasp_std'}, "command: .*No closing quotation"),
        ({"preset": "oqmd"}, "preset: Input should be 'mp' or 'gnome'"),
        ({"functional": "scan"}, "functional: Input should be"),
    ],
)
def test_wrong_settings(data, message):
    with pytest.raises(SettingsError, match=message):
        validate(VaspSettings, data)


def test_a_table_of_crystals_keeps_its_order(rock_salt):
    """The permutation is made per crystal: a second crystal of the same formula may have another."""
    reversed_salt = Crystal(rock_salt.lattice, rock_salt.frac_coords[::-1], rock_salt.atomic_numbers[::-1])
    for crystal in CrystalTable.from_crystals([rock_salt, reversed_salt]):
        order = PoscarOrder.of(crystal)
        np.testing.assert_array_equal(order.to_poscar(crystal).positions[order.back], crystal.positions)
