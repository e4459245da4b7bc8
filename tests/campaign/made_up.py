"""A known set of four elements and events of a campaign on it, with energies that can be checked by hand."""

from pathlib import Path

import numpy as np

from opengnome.campaign.events import Calculated, Choice
from opengnome.campaign.layout import Layout
from opengnome.crystals import Composition, Crystal, CrystalTable
from opengnome.crystals.elements import ATOMIC_NUMBERS
from opengnome.datasets import KnownSet
from opengnome.oracles import Calculation, Frames, OracleIdentity, Status, write_calculation
from report.synthetic_campaign import grid_crystal

LEVEL = "made up"
REFERENCES = {"Na": -1.3, "K": -1.1, "O": -4.9, "Cl": -1.8}
"""Total energies of the elements, eV/atom."""
FORMATION = {
    **dict.fromkeys(REFERENCES, 0.0),
    "NaCl": -2.0,
    "KCl": -2.1,
    "Na2O": -1.4,
    "K2O": -1.2,
    "NaO": -1.0,  # 0.05 above the hull (Na2O and oxygen: -1.05)
    "NaO3": -0.4,  # 0.125 above the hull
}
"""Formation energies of the known set, eV/atom."""
# Round 1 found NaKCl2 at -2.2: the hull of round 2 is lower than the known one wherever it takes part.
CURRENT_HULL = {
    "Na2KCl3": (2 * -2.0 + 4 * -2.2) / 6,
    "NaK2Cl3": (2 * -2.1 + 4 * -2.2) / 6,
    "Na3OCl": (3 * -1.4 + 2 * -2.0) / 5,
    "NaKO": (-1.4 - 1.2) / 2,
    "Na3KO2": -(3 * 1.4 + 3 * 1.3) / 6,
}
INITIAL_HULL = CURRENT_HULL | {"Na2KCl3": (4 * -2.0 + 2 * -2.1) / 6, "NaK2Cl3": (2 * -2.0 + 4 * -2.1) / 6}
"""Formation energy of the hull at a composition, eV/atom."""
IDENTITY = OracleIdentity(name="ase", code="toy:Toy", version="1", level=LEVEL, settings_digest="0" * 64)


def mixture(formula: str, values: dict[str, float] = REFERENCES) -> float:
    """Mean of the elements' values over the atoms of a formula, eV/atom."""
    fractions = Composition.from_formula(formula).fractions
    return sum(fractions.get(ATOMIC_NUMBERS[symbol], 0.0) * value for symbol, value in values.items())


def total(formula: str, formation: float) -> float:
    """Total energy of a phase, eV/atom."""
    return formation + mixture(formula)


def known_set(kind: str = "total") -> KnownSet:
    """The known set, with total or with formation energies."""
    table = CrystalTable.from_crystals([grid_crystal(f) for f in FORMATION], [f"known-{f}" for f in FORMATION])
    energies = [total(f, e) if kind == "total" else e for f, e in FORMATION.items()]
    return KnownSet(table, np.array(energies), kind, LEVEL, "made up")


def calculated(
    identifier: str, formula: str, energy: float | None, *, round: int = 1, status: Status = Status.CONVERGED
) -> Calculated:
    """The oracle's answer: energy in eV/atom, none where it failed."""
    return Calculated(
        round=round,
        crystal_id=identifier,
        reduced_formula=Composition.from_formula(formula).reduced_formula,
        status=status.value,
        reason="" if status == Status.CONVERGED else "made to fail",
        energy_per_atom=energy,
        n_steps=3,
        seconds=2.0,
        path=f"calculations/{identifier}.parquet",
    )


def write_answer(
    root: Path, answer: Calculated, *, initial: Crystal, relaxed: Crystal | None = None, frames: Frames | None = None
) -> None:
    """The file of a calculation, as its event says."""
    has_result = answer.energy_per_atom is not None
    final = (relaxed or initial) if has_result else None
    path = root / answer.path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_calculation(
        path,
        Calculation(
            status=Status(answer.status),
            reason=answer.reason,
            initial=initial,
            crystal=final,
            energy=None if answer.energy_per_atom is None else answer.energy_per_atom * initial.n_atoms,
            forces=None,
            stress=None,
            frames=frames,
            n_steps=answer.n_steps,
            fmax=0.01 if has_result else None,
            seconds=answer.seconds,
            oracle=IDENTITY,
        ),
    )


def choice(
    identifier: str,
    formula: str,
    *,
    arms: tuple[str, ...] = ("model",),
    predicted: float = -1.0,
    std: float = 0.1,
    initial_hull: float = 0.0,
) -> Choice:
    """A chosen candidate; `predicted` and `initial_hull` are formation energies, eV/atom."""
    return Choice(
        candidate_id=identifier,
        reduced_formula=Composition.from_formula(formula).reduced_formula,
        arms=arms,
        predicted_formation_energy_per_atom=predicted,
        predicted_std=std,
        predicted_decomposition_energy=predicted - initial_hull,
        hull_energy_per_atom=initial_hull,
        initial_hull_energy_per_atom=initial_hull,
        probability_stable=0.5,
        volume_scale=1.0,
        method="ionic_substitution",
        parent_ids=("known-NaCl",),
        replaced="Na+->K+",
    )


def layout_in(root: Path) -> Layout:
    """Layout of a campaign whose directory exists."""
    root.mkdir(parents=True, exist_ok=True)
    return Layout(root)
