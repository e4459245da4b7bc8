"""Stability in contact with a reservoir: grand-potential hulls, element profiles, electrochemical windows.

A reservoir fixes the chemical potential of its elements (the open elements). The phases then compete with
``phi = E - sum of mu * N`` over the open elements, per atom of the closed elements (Ong et al.,
doi:10.1021/cm702327g). As the potential of one element rises, a composition takes it up in steps; the potentials
of the steps are read exactly from the vertices of `equilibrium_vertices`, not from a scan.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from opengnome.crystals import Composition
from opengnome.crystals.elements import SYMBOLS
from opengnome.errors import HullError
from opengnome.hull.chemical_potentials import (
    ON_HULL,
    Phases,
    column_of,
    count_matrix,
    equilibrium_vertices,
    gas_potential_shift,
    phases_inside,
    refuse_missing,
)
from opengnome.hull.decomposition import LowerHull
from opengnome.hull.entry import Entry, check_entry
from opengnome.hull.hull import STABILITY_TOLERANCE, Hull
from opengnome.hull.reactions import Reaction, Species, formula_unit, species_of_mixture

# Uptakes per closed atom that differ by less are one: counts are whole numbers, so true steps are far larger.
_SAME_UPTAKE = 1e-6
ION_CHARGES = {3: 1, 11: 1, 19: 1, 37: 1, 55: 1, 12: 2, 20: 2, 30: 2, 38: 2, 56: 2, 13: 3, 39: 3}
"""Charge in e of the working ions that a voltage is defined for, by atomic number."""


@dataclass(frozen=True)
class OpenEquilibrium:
    """The phases of lowest grand potential at a composition in contact with reservoirs."""

    unit: Composition
    """The formula unit that everything here counts for."""
    products: tuple[Species, ...]
    exchange: dict[int, float]
    """Atoms of each open element taken from its reservoir; negative when given off."""
    grand_potential: float
    """Of the products, eV."""

    def reaction(self, energy: float, *, entry_id: str = "") -> Reaction:
        """The unit to the products, the open elements on the side where they belong; `energy` in eV."""
        taken: list[Species] = []
        given: list[Species] = []
        for z, amount in self.exchange.items():
            if abs(amount) > _SAME_UPTAKE:
                element = formula_unit(Composition(((z, 1),)))
                species = Species(element.reduced_formula, abs(amount) / element.n_atoms, element.n_atoms)
                (taken if amount > 0 else given).append(species)
        reactant = Species(self.unit.reduced_formula, 1.0, self.unit.n_atoms, entry_id)
        return Reaction((reactant, *taken), (*self.products, *given), energy)


class GrandPotentialHull:
    """The hull of all phases in equilibrium with reservoirs of the open elements.

    Energies are per atom of the closed elements, as in pymatgen's ``GrandPotentialPhaseDiagram``; `reaction` gives
    the same answer per atom of the phase, with products and exchange. Phases of open elements alone belong to the
    reservoir. Entropies of solids are neglected: their energies of 0 K stand for free energies.
    """

    def __init__(self, hull: Hull, chemical_potentials: Mapping[int, float]) -> None:
        """`chemical_potentials`: eV/atom on the energy scale of the entries, by atomic number of the open elements.

        Raises `HullError` for no or non-finite potentials, and when a phase of open elements alone would grow
        without end, e.g. an element whose potential lies above its own energy: that reservoir cannot exist.
        """
        if not chemical_potentials or not all(map(math.isfinite, chemical_potentials.values())):
            raise HullError(f"{dict(chemical_potentials)} must give at least one element a finite potential, eV/atom")
        self._hull = hull
        self._systems: dict[tuple[int, ...], tuple[Phases, LowerHull]] = {}
        self.chemical_potentials = dict(sorted(chemical_potentials.items()))
        """eV/atom by atomic number."""
        self._refuse_supersaturation()

    @classmethod
    def relative_to_elements(cls, hull: Hull, shifts: Mapping[int, float]) -> "GrandPotentialHull":
        """The hull at potentials given relative to the elemental references, eV/atom; zero is the element itself.

        Raises `MissingReferenceError` and as the constructor does.
        """
        references = hull.elemental_references
        refuse_missing((z for z in shifts if z not in references), what="an entry of the open element")
        return cls(hull, {z: references[z] + shift for z, shift in shifts.items()})

    @classmethod
    def in_gas(cls, hull: Hull, pressures: Mapping[int, float], *, temperature: float) -> "GrandPotentialHull":
        """The hull under diatomic gases: partial pressures in Pa by atomic number, `temperature` in K.

        ``{8: AIR_OXYGEN_PRESSURE}`` is dry air. See `gas_potential_shift` for the model and its zero.
        """
        shifts = {z: gas_potential_shift(z, temperature, pressure) for z, pressure in pressures.items()}
        return cls.relative_to_elements(hull, shifts)

    def closed_elements(self, composition: Composition) -> tuple[int, ...]:
        """Atomic numbers of the closed elements of a composition, ascending."""
        return tuple(z for z in composition.atomic_numbers if z not in self.chemical_potentials)

    def energy_per_closed_atom(self, entry: Entry) -> float:
        """Grand potential of an entry, eV per atom of its closed elements. Raises `HullError` when it has none."""
        return float(self._energies([entry.composition], np.array([entry.corrected_energy_per_atom]))[0])

    def energy_above_hull(self, entry: Entry) -> float:
        """Signed distance to the grand-potential hull, eV per closed atom; never below zero for a member.

        Raises `HullError` for another level, a non-finite energy or an entry of open elements alone,
        `MissingReferenceError`.
        """
        check_entry(entry, level=self._hull.level)
        distance = float(self.distances_from_hull([entry.composition], [entry.corrected_energy_per_atom])[0])
        return max(distance, 0.0) if entry in self._hull else distance

    def distances_from_hull(self, compositions: Sequence[Composition], energies_per_atom: ArrayLike) -> np.ndarray:
        """Signed distances of many phases, shape (n,), eV per closed atom; the bulk form of `energy_above_hull`.

        `energies_per_atom` (n,) are corrected energies per atom of the whole phase; NaN gives NaN. Raises
        `HullError` when the lengths differ or a composition has open elements alone, `MissingReferenceError`.
        """
        energies = np.asarray(energies_per_atom, dtype=float)
        if energies.shape != (len(compositions),):
            raise HullError(f"{len(compositions)} compositions with energies of shape {energies.shape}; give one each")
        distances = self._energies(compositions, energies)
        rows_of_system: dict[tuple[int, ...], list[int]] = {}
        for row, composition in enumerate(compositions):
            rows_of_system.setdefault(self.closed_elements(composition), []).append(row)
        for closed, rows in rows_of_system.items():
            _, lower_hull = self._system(closed)
            counts = count_matrix((compositions[row].counts for row in rows), len(rows), closed)
            distances[rows] -= lower_hull.energies_at(counts / counts.sum(axis=1, keepdims=True))
        return distances

    def equilibrium(self, composition: Composition) -> OpenEquilibrium:
        """The phases that one formula unit of a composition becomes in contact with the reservoirs.

        Raises `HullError` for a composition of open elements alone, `MissingReferenceError`.
        """
        self._energies([composition], np.zeros(1))
        unit = formula_unit(composition)
        closed = self.closed_elements(composition)
        phases, lower_hull = self._system(closed)
        amounts = count_matrix([unit.counts], 1, closed)[0]
        mixture = lower_hull.mixture_at(amounts / amounts.sum())
        counts = phases.counts[mixture.points]  # (p, k)
        closed_counts = counts[:, [phases.elements.index(z) for z in closed]].sum(axis=1)
        cells = mixture.amounts * amounts.sum() / closed_counts
        products = species_of_mixture([phases.entries[i] for i in mixture.points], cells * counts.sum(axis=1))
        held = dict(zip(phases.elements, (cells @ counts).tolist(), strict=True))
        before = dict(unit.counts)
        exchange = {z: held[z] - before.get(z, 0) for z in self.chemical_potentials}
        return OpenEquilibrium(unit, products, exchange, float(mixture.energy_per_atom * amounts.sum()))

    def reaction(self, phase: Entry | Composition) -> Reaction:
        """What one formula unit becomes in contact with the reservoirs, and what it takes up or gives off.

        The reaction energy is the change of the grand potential, at or below zero for an entry on or above the
        hull; a composition is taken at its energy on the hull without reservoirs. Raises as `energy_above_hull`.
        """
        if isinstance(phase, Entry):
            check_entry(phase, level=self._hull.level)
            composition, energy, entry_id = phase.composition, phase.corrected_energy_per_atom, phase.id
        else:
            composition, energy, entry_id = phase, self._hull.energy_per_atom_at(phase), ""
        after = self.equilibrium(composition)
        counts = dict(after.unit.counts)
        before = energy * after.unit.n_atoms - sum(mu * counts.get(z, 0) for z, mu in self.chemical_potentials.items())
        return after.reaction(after.grand_potential - before, entry_id=entry_id)

    def stable_entries(
        self, closed_elements: Iterable[int], *, tolerance: float = STABILITY_TOLERANCE
    ) -> tuple[Entry, ...]:
        """Lowest entries per stoichiometry at most `tolerance` (eV per closed atom) above the hull of a system.

        `closed_elements` are atomic numbers, open ones among them ignored; sorted by stoichiometry. Raises `HullError`
        when none is left, `MissingReferenceError`.
        """
        closed = tuple(sorted(set(closed_elements) - set(self.chemical_potentials)))
        if not closed:
            raise HullError("no closed element is left of those asked for; name one that no reservoir holds")
        phases, _ = self._system(closed)
        distances = self.distances_from_hull([entry.composition for entry in phases.entries], phases.energies)
        return tuple(entry for entry, d in zip(phases.entries, distances, strict=True) if d <= tolerance)

    def _energies(self, compositions: Sequence[Composition], energies_per_atom: np.ndarray) -> np.ndarray:
        """Grand potentials (n,), eV per closed atom."""
        open_elements = tuple(self.chemical_potentials)
        potentials = np.array(list(self.chemical_potentials.values()))
        held = count_matrix((c.counts for c in compositions), len(compositions), open_elements)
        n_atoms = np.array([composition.n_atoms for composition in compositions], dtype=float)
        n_closed = n_atoms - held.sum(axis=1)
        if (n_closed == 0).any():
            formula = compositions[int(np.flatnonzero(n_closed == 0)[0])].reduced_formula
            names = ", ".join(SYMBOLS[z] for z in open_elements)
            raise HullError(f"{formula} holds open elements alone ({names}) and belongs to the reservoir; leave it out")
        return (energies_per_atom * n_atoms - held @ potentials) / n_closed

    def _system(self, closed: tuple[int, ...]) -> tuple[Phases, LowerHull]:
        """The phases with a closed element of a system, and the hull over the closed elements; built once."""
        if closed not in self._systems:
            everything = phases_inside(self._hull, {*closed, *self.chemical_potentials})
            columns = [everything.elements.index(z) for z in closed]
            closed_counts = everything.counts[:, columns]
            rows = np.flatnonzero(closed_counts.sum(axis=1))
            entries = tuple(everything.entries[row] for row in rows)
            phases = Phases(everything.elements, entries, everything.counts[rows], everything.energies[rows])
            fractions = closed_counts[rows] / closed_counts[rows].sum(axis=1, keepdims=True)
            pure = (fractions == 1.0).any(axis=0)
            refuse_missing(
                (z for z, found in zip(closed, pure, strict=True) if not found),
                what="a phase of the element alone, or of it and open elements",
            )
            energies = self._energies([entry.composition for entry in entries], phases.energies)
            self._systems[closed] = phases, LowerHull(fractions, energies)
        return self._systems[closed]

    def _refuse_supersaturation(self) -> None:
        reservoir = phases_inside(self._hull, self.chemical_potentials)
        potentials = np.array(list(self.chemical_potentials.values()))
        driving = reservoir.fractions @ potentials - reservoir.energies
        if len(driving) and driving.max() > ON_HULL:
            entry = reservoir.entries[int(np.argmax(driving))]
            limits = ", ".join(f"{SYMBOLS[z]} {mu:.4f}" for z, mu in self.chemical_potentials.items())
            raise HullError(
                f"at the chemical potentials {limits} eV/atom {entry.reduced_formula} ({entry.id}) of open "
                f"elements alone would grow without end (driving force {driving.max():.3g} eV/atom); lower them"
            )


@dataclass(frozen=True)
class EquilibriumInterval:
    """A range of the chemical potential of the open element in which the equilibrium phases stay the same."""

    lower: float
    """eV/atom on the scale of the entries; minus infinity for the first interval."""
    upper: float
    """eV/atom; that of the element itself for the last interval."""
    uptake: float
    """Atoms of the open element taken up by one formula unit; negative when given off."""
    reaction: Reaction
    """One formula unit and the element to the equilibrium phases; its energy counts the element at its reference."""


@dataclass(frozen=True)
class ElementProfile:
    """How a composition evolves as the chemical potential of one element rises."""

    composition: Composition
    """The formula unit that the uptakes count for."""
    element: int
    """Atomic number of the open element."""
    reference: float
    """Energy of the element, eV/atom: the highest potential there is."""
    intervals: tuple[EquilibriumInterval, ...]
    """From the lowest potential to the reference; neighbours touch."""

    @property
    def critical_potentials(self) -> tuple[float, ...]:
        """Where the equilibrium changes, eV/atom, ascending; the last is the reference."""
        return tuple(interval.upper for interval in self.intervals)


@dataclass(frozen=True)
class VoltagePlateau:
    """A step of equilibrium (de)insertion at constant voltage."""

    voltage: float
    """V against the metal of the working ion."""
    start: float
    """Working ions taken up per formula unit before the step, on discharge; negative when given off."""
    end: float
    """Working ions taken up per formula unit after the step; more than `start`."""
    products: Reaction
    """The formula unit to the phases after the step."""


@dataclass(frozen=True)
class ElectrochemicalWindow:
    """Voltages between which a composition neither takes up nor gives off the working ion at equilibrium."""

    profile: ElementProfile
    charge: int
    """Of the working ion, e."""
    reduction_potential: float
    """V; below it the composition takes up the ion. Zero when it is stable against the metal."""
    oxidation_potential: float
    """V; above it the composition gives the ion off. Infinity when it holds none."""
    reduction: Reaction | None
    """To the phases just below the window; None when it is stable against the metal."""
    oxidation: Reaction | None
    """To the phases just above the window; None when it holds no working ion."""
    inside: Reaction | None
    """What the composition is within the window: itself, or the phases it decomposes into without exchange.

    None when the window has no width: then it always exchanges ions.
    """

    @property
    def width(self) -> float:
        """V; zero for a composition that decomposes at any voltage with exchange of ions."""
        return self.oxidation_potential - self.reduction_potential

    @property
    def plateaus(self) -> tuple[VoltagePlateau, ...]:
        """The voltage profile from the highest voltage down, the deposition of the metal left out."""
        return tuple(
            VoltagePlateau(self.voltage(before.upper), before.uptake, after.uptake, after.reaction)
            for before, after in pairwise(self.profile.intervals)
        )

    def voltage(self, chemical_potential: float) -> float:
        """V against the metal at a chemical potential of the working ion, eV/atom."""
        return (self.profile.reference - chemical_potential) / self.charge


def element_profile(hull: Hull, composition: Composition, element: int) -> ElementProfile:
    """The equilibrium phases of a composition at every chemical potential of one element, and where they change.

    The composition keeps its amounts of all other elements. As pymatgen's ``get_element_profile``, with the critical
    potentials from the vertices of the system instead of from a shifted composition. Raises `HullError` when the
    composition holds no other element, `MissingReferenceError`.
    """
    unit = formula_unit(composition)
    closed = tuple(z for z in unit.atomic_numbers if z != element)
    if not closed:
        raise HullError(f"{unit.reduced_formula} is nothing but {SYMBOLS[element]}; name a phase that takes it up")
    phases = phases_inside(hull, {*closed, element})
    critical = _critical_points(equilibrium_vertices(phases), phases.elements, unit, element)
    reference = float(phases.references[phases.elements.index(element)])
    bounds = [-math.inf, *critical.tolist()]
    known = Hull(phases.entries)
    intervals = tuple(_interval(known, unit, element, reference, lower, upper) for lower, upper in pairwise(bounds))
    return ElementProfile(unit, element, reference, intervals)


def electrochemical_window(
    hull: Hull, composition: Composition, *, ion: int = 3, charge: int | None = None
) -> ElectrochemicalWindow:
    """The thermodynamic window of a composition against the metal of a working ion, and its voltage profile.

    The convention of Richards et al. (doi:10.1021/acs.chemmater.5b04082) and Zhu et al. (doi:10.1021/acsami.5b07517):
    the limits are the slopes of the hull energy along the content of the ion, so a metastable composition has the
    window of the phases that it decomposes into; kinetics, which often widens it, is not in it. `ion` is an atomic
    number; `charge` in e is that of `ION_CHARGES` unless given. Raises `HullError` when it is not known,
    `MissingReferenceError`, and as `element_profile`.
    """
    charge = ION_CHARGES.get(ion) if charge is None else charge
    if charge is None or charge < 1:
        raise HullError(f"{SYMBOLS[ion]} with {charge=} is no working ion; give its positive charge in e")
    profile = element_profile(hull, composition, ion)
    intervals = profile.intervals
    after = next((i for i, interval in enumerate(intervals) if interval.uptake > -_SAME_UPTAKE), len(intervals))
    keeps = after < len(intervals) and intervals[after].uptake < _SAME_UPTAKE
    # The window is the interval without exchange; where there is none it shrinks to the potential of the step across.
    first, next_up = after - 1, after + 1 if keeps else after
    low = intervals[first].upper if first >= 0 else -math.inf
    high = intervals[after].upper if keeps else low
    return ElectrochemicalWindow(
        profile,
        charge,
        reduction_potential=(profile.reference - high) / charge,
        oxidation_potential=(profile.reference - low) / charge,
        reduction=intervals[next_up].reaction if next_up < len(intervals) else None,
        oxidation=intervals[first].reaction if first >= 0 else None,
        inside=intervals[after].reaction if keeps else None,
    )


def _interval(
    hull: Hull, unit: Composition, element: int, reference: float, lower: float, upper: float
) -> EquilibriumInterval:
    # Inside the interval the phases are unique; at its ends two sets of them are in equilibrium.
    inside = upper - 1.0 if lower == -math.inf else (lower + upper) / 2.0
    after = GrandPotentialHull(hull, {element: inside}).equilibrium(unit)
    uptake = after.exchange[element]
    solids = after.grand_potential + inside * (uptake + dict(unit.counts).get(element, 0))
    before = hull.energy_per_atom_at(unit) * unit.n_atoms
    return EquilibriumInterval(lower, upper, uptake, after.reaction(solids - uptake * reference - before))


def _critical_points(vertices: np.ndarray, elements: tuple[int, ...], unit: Composition, element: int) -> np.ndarray:
    """Potentials (c,) of `element` where the phases of `unit` change, ascending; the last is the element's own.

    With y the closed atoms of `unit`, its grand potential at the potential m of the element is the highest
    ``y . mu`` of all equilibria with that m (duality of linear programs). These are mixtures of the vertices, and
    lower m is always allowed, so the grand potential is the falling upper envelope of the vertices projected onto
    (m, y . mu); its slopes are minus the content of the element, its corners the critical potentials.
    """
    column = column_of(elements, element)
    weights = count_matrix([unit.counts], 1, elements)[0]
    weights[column] = 0.0
    return _upper_envelope(np.column_stack([vertices[:, column], vertices @ (weights / weights.sum())]))


def _upper_envelope(points: np.ndarray) -> np.ndarray:
    """Abscissas of the corners of the falling upper envelope of points (n, 2), ascending."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    chain: list[np.ndarray] = []
    for point in ordered:
        if chain and point[0] - chain[-1][0] < ON_HULL:  # the same abscissa: the higher one counts
            if point[1] <= chain[-1][1]:
                continue
            chain.pop()
        # A corner stays when the envelope turns down there by more than rounding; uptakes are the negative slopes.
        while chain and not _turns_down(chain[-2] if len(chain) > 1 else None, chain[-1], point):
            chain.pop()
        chain.append(point)
    return np.array([point[0] for point in chain])


def _turns_down(before: np.ndarray | None, corner: np.ndarray, after: np.ndarray) -> bool:
    """Whether the slope falls at `corner`; before the first corner the envelope is flat."""
    slope_before = 0.0 if before is None else (corner[1] - before[1]) / (corner[0] - before[0])
    slope_after = (after[1] - corner[1]) / (after[0] - corner[0])
    return bool(slope_before - slope_after > _SAME_UPTAKE)
