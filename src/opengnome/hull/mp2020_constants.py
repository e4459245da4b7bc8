"""The numbers of the Materials Project 2020 corrections, and the settings that they were fitted for.

Corrections and uncertainties: Wang, Kingsbury, McDermott, Horton, Jain, Ong, Dwaraknath and Persson, Sci. Rep. 11,
15496 (2021), doi:10.1038/s41598-021-94550-5, as published with pymatgen in ``MP2020Compatibility.yaml``. Hubbard U
(fitted by Jain et al., doi:10.1103/PhysRevB.84.045115) and pseudopotentials: pymatgen's ``MPRelaxSet.yaml``. pymatgen
is under the MIT licence, copyright 2011-2012 MIT and the Materials Project. All copied from pymatgen 2026.10.24;
`tests/hull/test_corrections_constants.py` compares every number with the installed one.
"""

from opengnome.crystals.elements import ATOMIC_NUMBERS

ANION_CORRECTIONS: dict[str, tuple[float, float]] = {
    "oxide": (-0.687, 0.002),
    "peroxide": (-0.465, 0.0172),
    "superoxide": (-0.161, 0.0075),
    "ozonide": (0.0, 0.0),
    "S": (-0.503, 0.0093),
    "F": (-0.462, 0.0026),
    "Cl": (-0.614, 0.0018),
    "Br": (-0.534, 0.0026),
    "I": (-0.379, 0.0055),
    "N": (-0.361, 0.0093),
    "Se": (-0.472, 0.0341),
    "Si": (0.071, 0.0165),
    "Sb": (-0.192, 0.0089),
    "Te": (-0.422, 0.0262),
    "H": (-0.179, 0.0013),
}
"""Correction and its uncertainty, eV per atom of the anion."""

MIXING_CORRECTIONS: dict[str, tuple[float, float]] = {
    "V": (-1.7, 0.0064),
    "Cr": (-1.999, 0.0108),
    "Mn": (-1.668, 0.0053),
    "Fe": (-2.256, 0.0101),
    "Co": (-1.638, 0.006),
    "Ni": (-2.541, 0.0107),
    "W": (-4.438, 0.0253),
    "Mo": (-3.202, 0.0089),
}
"""Correction of GGA+U towards GGA in oxides and fluorides, and its uncertainty, eV per atom of the metal."""

HUBBARD_U: dict[str, float] = {
    "V": 3.25,
    "Cr": 3.7,
    "Mn": 3.9,
    "Fe": 5.3,
    "Co": 3.32,
    "Ni": 6.2,
    "W": 6.2,
    "Mo": 4.38,
}
"""U in eV that these metals must have where oxygen or fluorine is the most electronegative element, and only there."""

HUBBARD_ANIONS = ("O", "F")

ANION_STATE_RANGES: dict[str, tuple[int, int]] = {
    "Br": (-1, -1),
    "I": (-1, -1),
    "Se": (-2, -1),
    "Si": (-4, -1),
    "Sb": (-3, -2),
    "Te": (-2, -1),
    "H": (-1, -1),
    "N": (-3, -2),
    "F": (-1, -1),
    "Cl": (-1, -1),
}
"""Lowest and highest oxidation state (e) of each anion among the compounds that the corrections were fitted to.

These are the anions whose oxidation state is asked for; oxygen and sulfur are told apart by their bonds. In
pymatgen: `MP2020_ANION_OXIDATION_STATE_RANGES`.
"""

FORMULAS_BY_OXIDE_TYPE: dict[str, frozenset[str]] = {
    "peroxide": frozenset("Li2O2 Na2O2 K2O2 Cs2O2 Rb2O2 BeO2 MgO2 CaO2 SrO2 BaO2".split()),
    "superoxide": frozenset("LiO2 NaO2 KO2 RbO2 CsO2".split()),
    "ozonide": frozenset("LiO3 NaO3 KO3 NaO5".split()),
}
"""Reduced formulas that say the oxide type by themselves; any other is taken for an oxide."""

POTENTIALS: dict[int, str] = {
    ATOMIC_NUMBERS[name.partition("_")[0]]: name
    for name in """
    Ac Ag Al Ar As Au B Ba_sv Be_sv Bi Br C Ca_sv Cd Ce Cl Co Cr_pv Cs_sv Cu_pv Dy_3 Er_3 Eu F Fe_pv Ga_d Gd Ge_d H He
    Hf_pv Hg Ho_3 I In_d Ir K_sv Kr La Li_sv Lu_3 Mg_pv Mn_pv Mo_pv N Na_pv Nb_pv Nd_3 Ne Ni_pv Np O Os_pv P Pa Pb_d
    Pd Pm_3 Pr_3 Pt Pu Rb_sv Re_pv Rh_pv Ru_pv S Sb Sc_sv Se Si Sm_3 Sn_d Sr_sv Ta_pv Tb_3 Tc_pv Te Th Ti_pv Tl_d Tm_3
    U V_pv W_pv Xe Y_sv Yb_2 Zn Zr_sv
    """.split()
}
"""Name of the PAW potential (VASP's PBE set) by atomic number."""
