"""What GPAW is asked to do, beside what pymatgen asks VASP to do; GPAW is not needed."""

import numpy as np
import pytest
from pymatgen.core import Structure
from pymatgen.io.vasp.inputs import Kpoints
from pymatgen.io.vasp.sets import MPRelaxSet

from opengnome.crystals import Crystal
from opengnome.crystals.interop import from_pymatgen, to_pymatgen
from opengnome.crystals.symmetry import symmetry_dataset
from opengnome.errors import SettingsError
from opengnome.oracles import OracleSettings, RelaxationSettings
from opengnome.oracles.gpaw_engine import gap_of_levels
from opengnome.oracles.gpaw_parameters import (
    HUBBARD_U,
    LADDER,
    STARTING_MOMENTS,
    gpaw_parameters,
    hubbard_setups,
    kpoint_mesh,
    level_name,
    plan_stages,
    starting_moments,
)
from opengnome.oracles.gpaw_settings import GpawSettings
from opengnome.oracles.gpaw_symmetry import symmetrised
from opengnome.settings import load, to_toml, validate

pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # spglib, in pymatgen

FCC = [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
HEXAGONAL = [[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, 1.62]]
WURTZITE = [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.375], [2 / 3, 1 / 3, 0.875]]


def crystal(lattice, frac_coords, numbers) -> Crystal:
    return Crystal(np.array(lattice, dtype=float), np.array(frac_coords, dtype=float), np.array(numbers))


CRYSTALS = {
    "NaCl": crystal(5.7 * np.array(FCC), [[0, 0, 0], [0.5] * 3], [11, 17]),
    "ZnS": crystal(3.84 * np.array(HEXAGONAL), WURTZITE, [30, 30, 16, 16]),
    "CsCl": crystal(4.2 * np.eye(3), [[0, 0, 0], [0.5] * 3], [55, 17]),
    "TiO2": crystal(
        np.diag([4.65, 4.65, 2.97]),
        [[0, 0, 0], [0.5] * 3, *([x, x, 0] for x in (0.3, 0.7)), [0.8, 0.2, 0.5], [0.2, 0.8, 0.5]],
        [22] * 2 + [8] * 4,
    ),
    "W": crystal(3.17 / 2 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]), [[0, 0, 0]], [74]),
    "orthorhombic": crystal(np.diag([5.0, 6.0, 7.5]), [[0, 0, 0], [0.5, 0.5, 0.4]], [12, 34]),
}


@pytest.mark.parametrize("density", [20.0, 64.0, 100.0])
@pytest.mark.parametrize("name", CRYSTALS)
def test_mesh_is_pymatgens(name, density):
    size, gamma = kpoint_mesh(CRYSTALS[name], density, symprec=0.01)
    expected = Kpoints.automatic_density_by_vol(to_pymatgen(CRYSTALS[name]), density)
    assert (size, gamma) == (tuple(expected.kpts[0]), expected.style == Kpoints.supported_modes.Gamma)


@pytest.mark.parametrize(
    ("name", "density", "n_kpoints"),
    [("NaCl", 12, 8), ("NaCl", 30, 10), ("ZnS", 12, 6), ("ZnS", 30, 10), ("W", 12, 10), ("TiO2", 12, 9),
     ("CsCl", 30, 4), ("orthorhombic", 30, 8)],
)  # fmt: skip
def test_kpoints_that_no_operation_takes_into_each_other(name, density, n_kpoints):
    """Beside the numbers of k-points that GPAW 26.7 has for these parameters."""
    chosen, group = symmetrised(CRYSTALS[name], symprec=0.01)
    size, gamma = kpoint_mesh(chosen, density, symprec=0.01)
    assert group.n_kpoints(size, gamma=gamma) == n_kpoints


def test_hexagonal_family_has_gamma_where_pymatgen_may_not():
    """Quartz-like cells are trigonal; every member of the family gets a mesh that its axis maps onto itself."""
    assert kpoint_mesh(CRYSTALS["ZnS"], 64.0, symprec=0.01)[1]


def test_u_and_moments_are_the_materials_projects():
    iron_oxide = Structure(4.3 * np.array(FCC), ["Fe", "O"], [[0, 0, 0], [0.5] * 3])
    config = MPRelaxSet(iron_oxide).config_dict
    assert config["INCAR"]["LDAUU"]["O"] == config["INCAR"]["LDAUU"]["F"] == HUBBARD_U
    moments = config["INCAR"]["MAGMOM"]
    of_elements = {name: moment for name, moment in moments.items() if "+" not in name}
    assert of_elements.items() <= STARTING_MOMENTS.items()
    ions = {name[:-2]: moment for name, moment in moments.items() if name.endswith("3+") and name[0] not in "CMLE"}
    assert ions.items() <= STARTING_MOMENTS.items()


@pytest.mark.parametrize(
    ("numbers", "setups"),
    [
        ([26, 8], {"Fe": ":d,5.3,0"}),
        ([28, 9], {"Ni": ":d,6.2,0"}),
        ([26, 16], {}),
        ([12, 8], {}),
        ([26, 26], {}),
    ],
)
def test_u_in_oxides_and_fluorides_only(numbers, setups):
    rocksalt = crystal(4.3 * np.array(FCC), [[0, 0, 0], [0.5] * 3], numbers)
    assert hubbard_setups(rocksalt) == setups
    stage = plan_stages(GpawSettings(), max_steps=9)[0]
    assert gpaw_parameters(rocksalt, stage, GpawSettings()).get("setups", {}) == setups
    plain = GpawSettings(functional="pbe")
    assert "setups" not in gpaw_parameters(rocksalt, plan_stages(plain, max_steps=9)[0], plain)


def test_spin_where_there_is_a_reason():
    iron = crystal(2.9 * np.eye(3), [[0, 0, 0], [0.5] * 3], [26, 8])
    assert starting_moments(iron, GpawSettings()) == [5.0, 0.6]
    assert starting_moments(iron, GpawSettings(spin="off")) is None
    assert starting_moments(CRYSTALS["NaCl"], GpawSettings()) is None
    assert starting_moments(CRYSTALS["NaCl"], GpawSettings(spin="on")) == [0.6, 0.6]
    for distance, spins in ((1.23, True), (1.33, True), (1.49, False)):  # O2, superoxide, peroxide
        dimer = crystal(6.0 * np.eye(3), [[0, 0, 0], [distance / 6, 0, 0], [0.5] * 3], [8, 8, 19])
        assert (starting_moments(dimer, GpawSettings()) is not None) == spins


def test_stages_and_levels():
    def names(**settings):
        return [stage.name for stage in plan_stages(GpawSettings(**settings), max_steps=9)]

    assert names() == ["relax-1", "relax-2", "static"]
    assert names(static=False, n_relaxations=1) == ["relax-1"]
    assert names(functional="r2scan") == ["pbe-relax", "relax-2", "static"]
    assert [stage.name for stage in plan_stages(GpawSettings(), max_steps=0)] == ["static"]
    changes = [{}, {"functional": "pbe"}, {"functional": "r2scan"}, {"cutoff": 600.0}, {"static": False}]
    changes += [{"static_kpoint_density": 2.0}, {"static": False, "kpoint_density": 2.0}, {"smearing": 0.5}]
    assert len({level_name(GpawSettings(**settings)) for settings in changes}) == len(changes)
    assert level_name(GpawSettings()) == "gpaw-pbe+u-800eV"


def test_corrections_replace_what_was_set():
    stage = plan_stages(GpawSettings(), max_steps=9)[0]
    plain = gpaw_parameters(CRYSTALS["NaCl"], stage, GpawSettings())
    assert plain["occupations"]["width"] == 0.05
    assert "mixer" not in plain
    corrected = gpaw_parameters(CRYSTALS["NaCl"], stage, GpawSettings(), LADDER)
    assert corrected["occupations"]["width"] == 0.2
    assert (corrected["mixer"]["name"], corrected["nbands"]) == ("pulay", "200%")
    assert corrected["mode"] == plain["mode"]


def test_gap_of_levels():
    filled, empty = [-3.0, -1.0, -2.0], [1.5, 2.5, 1.0]
    levels = np.array([[filled, empty]]).transpose(0, 2, 1)  # one spin, three k-points, two bands
    assert gap_of_levels(levels, 0.2) == pytest.approx(2.0)
    assert gap_of_levels(levels, -1.5) == 0.0  # the lower band crosses
    assert gap_of_levels(levels, 5.0) is None
    half_metal = np.concatenate([levels, levels - 1.2])  # the other spin's upper band crosses
    assert gap_of_levels(half_metal, 0.2) == 0.0


@pytest.mark.parametrize("name", CRYSTALS)
def test_symmetrised_is_exact_and_near(name):
    ideal = CRYSTALS[name]
    rng = np.random.default_rng(0)
    noisy = Crystal(
        ideal.lattice @ (np.eye(3) + 1e-3 * rng.normal(size=(3, 3))),
        ideal.frac_coords + 1e-3 * rng.normal(size=ideal.frac_coords.shape),
        ideal.atomic_numbers,
    )
    found, group = symmetrised(noisy, symprec=0.06)
    n_operations = len(symmetry_dataset(ideal).rotations)
    assert len(symmetry_dataset(found, symprec=1e-6).rotations) == len(group.rotations) == n_operations
    assert np.abs(found.positions - noisy.positions).max() < 0.06
    assert np.abs(found.lattice - noisy.lattice).max() < 0.06
    # seen from the standard origin, translations are multiples of 1/24
    shifted = Crystal(found.lattice, found.frac_coords + group.origin, found.atomic_numbers)
    translations = 24 * symmetry_dataset(shifted, symprec=1e-6).translations
    np.testing.assert_allclose(translations, np.round(translations), atol=1e-4)
    # a projection: symmetric forces and stresses stay, a central force and a pressure in particular
    forces, stress = rng.normal(size=(found.n_atoms, 3)), rng.normal(size=(3, 3))
    once = group.symmetrised_forces(forces, found.lattice)
    np.testing.assert_allclose(group.symmetrised_forces(once, found.lattice), once, atol=1e-12)
    once = group.symmetrised_stress(stress + stress.T, found.lattice)
    np.testing.assert_allclose(group.symmetrised_stress(once, found.lattice), once, atol=1e-12)
    np.testing.assert_allclose(np.trace(once), 2 * np.trace(stress), atol=1e-12)


def test_forces_of_a_symmetric_potential_are_left_alone():
    """Of a pair potential, whose forces have the symmetry of the crystal without help."""
    from ase.calculators.lj import LennardJones

    from opengnome.crystals.interop import to_ase

    found, group = symmetrised(CRYSTALS["TiO2"], symprec=0.01)
    atoms = to_ase(found)
    atoms.calc = LennardJones(sigma=2.0, rc=6.0)
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    assert np.abs(forces).max() > 1e-3
    np.testing.assert_allclose(group.symmetrised_forces(forces, found.lattice), forces, atol=1e-9)
    np.testing.assert_allclose(group.symmetrised_stress(stress, found.lattice), stress, atol=1e-9)


def test_settings_of_an_engine_are_a_section(tmp_path):
    settings = validate(OracleSettings, {"name": "gpaw", "gpaw": {"cutoff": 400.0}})
    assert settings.gpaw.cutoff == 400.0
    assert settings.relaxation.timeout_s == 86400.0  # not the 600 s of a potential
    given = validate(OracleSettings, {"name": "gpaw", "relaxation": {"timeout_s": 60.0}})
    assert given.relaxation.timeout_s == 60.0
    assert OracleSettings(name="gpaw", relaxation=RelaxationSettings(fmax=0.1)).relaxation.timeout_s == 86400.0
    (tmp_path / "oracle.toml").write_text(to_toml(settings))
    assert load(OracleSettings, tmp_path / "oracle.toml") == settings
    assert OracleSettings.model_validate_json(settings.model_dump_json()) == settings


def test_names_of_calculations_made_before_gpaw_came_stay():
    assert not {"gpaw", "vasp"} & OracleSettings().model_dump().keys()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"gpaw": {"cutoff": 400.0}}, 'gpaw is a section of the gpaw oracle, but name = "chgnet"'),
        ({"name": "gpaw", "level": "PBE"}, "the level of the gpaw oracle follows from its settings"),
        ({"name": "gpaw", "gpaw": {"cutof": 400.0}}, "did you mean 'cutoff'"),
        ({"name": "gpaw", "gpaw": {"functional": "r2scan", "n_relaxations": 1}}, "n_relaxations of at least 2"),
        ({"name": "gpaw", "gpaw": {"cutoff": 5.0}}, "greater than or equal to 100"),
    ],
)
def test_wrong_settings(data, message):
    with pytest.raises(SettingsError, match=message):
        validate(OracleSettings, data)


def test_from_pymatgen_keeps_the_mesh_of_a_primitive_cell():
    """The conventional cell has four times the volume and a quarter of the points."""
    primitive = CRYSTALS["NaCl"]
    conventional = from_pymatgen(to_pymatgen(primitive).to_conventional())
    n_primitive = np.prod(kpoint_mesh(primitive, 64.0, symprec=0.01)[0])
    n_conventional = np.prod(kpoint_mesh(conventional, 64.0, symprec=0.01)[0])
    assert 2 < n_primitive / n_conventional < 8
