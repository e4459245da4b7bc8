"""Drawings of hulls and of chemical potentials: what is drawn is checked, then that it is drawn."""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from opengnome.crystals import Composition
from opengnome.crystals.elements import ATOMIC_NUMBERS
from opengnome.errors import InvalidCrystalError, MissingReferenceError, SettingsError
from opengnome.hull import Entry, Hull
from opengnome.report.chemical_potential_diagram import (
    ChemicalPotentialDiagram,
    chemical_potential_diagram,
    draw_chemical_potentials,
)
from opengnome.report.phase_diagram import draw_phase_diagram, phase_diagram, system_elements

ELEMENTS = ("Li", "Fe", "P", "O")


def random_hull(n_elements: int, *, seed: int, n_compounds: int = 30) -> Hull:
    """Elements with energies, and compounds of two or more of them, most of them bound."""
    rng = np.random.default_rng(seed)
    elements = ELEMENTS[:n_elements]
    references = dict(zip(elements, (-1.9, -8.3, -5.4, -4.9), strict=False))
    entries = [entry(symbol, symbol, energy) for symbol, energy in references.items()]
    for number in range(n_compounds):
        counts = rng.integers(0, 5, n_elements)
        if np.count_nonzero(counts) < 2:
            continue
        formula = "".join(f"{symbol}{count}" for symbol, count in zip(elements, counts, strict=True) if count)
        fractions = counts / counts.sum()
        mixing = float(fractions @ np.array([references[symbol] for symbol in elements]))
        entries.append(entry(f"c{number}", formula, mixing - rng.uniform(-0.2, 2.0) * (1 - fractions.max())))
    return Hull(entries)


def entry(identifier: str, formula: str, energy: float) -> Entry:
    return Entry(identifier, Composition.from_formula(formula), energy, level="test")


def facet_edges(hull: Hull, elements: Sequence[str]) -> set[frozenset[str]]:
    """Pairs of ids that share a facet of pymatgen's phase diagram."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

    symbols = {z: symbol for symbol, z in ATOMIC_NUMBERS.items()}
    theirs = [
        PDEntry(
            {symbols[z]: n for z, n in e.composition.counts},
            e.corrected_energy_per_atom * e.composition.n_atoms,
            name=e.id,
        )
        for e in hull.entries
        if {symbols[z] for z in e.composition.atomic_numbers} <= set(elements)
    ]
    diagram = PhaseDiagram(theirs)
    names = [e.name for e in diagram.qhull_entries]
    return {frozenset(names[i] for i in pair) for facet in diagram.facets for pair in combinations(facet, 2)}


@pytest.mark.parametrize("n_elements", [2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_phases_and_tie_lines_are_those_of_the_hull(n_elements: int, seed: int) -> None:
    hull = random_hull(n_elements, seed=seed)
    elements = ELEMENTS[:n_elements]
    diagram = phase_diagram(hull, elements)
    found = {frozenset((diagram.phases[a].id, diagram.phases[b].id)) for a, b in diagram.tie_lines}
    assert found == facet_edges(hull, elements)
    by_id = {e.id: e for e in hull.entries}
    stable = {e.id for e in hull.stable_entries()}
    assert len({phase.reduced_formula for phase in diagram.phases}) == len(diagram.phases)
    for phase in diagram.phases:
        own = by_id[phase.id]
        assert phase.distance == pytest.approx(hull.energy_above_hull(own), abs=1e-12)
        assert phase.stable == (phase.id in stable)
        assert sum(phase.fractions) == pytest.approx(1.0)
        expected = hull.formation_energy_per_atom(own.composition, own.energy_per_atom)
        assert phase.formation_energy_per_atom == pytest.approx(expected, abs=1e-12)


def test_a_system_within_a_larger_hull_in_the_order_it_is_named() -> None:
    hull = random_hull(4, seed=3)
    diagram = phase_diagram(hull, ("O", "Li"))
    assert diagram.elements == ("O", "Li")
    assert all(set(re.findall("[A-Z][a-z]?", phase.reduced_formula)) <= {"Li", "O"} for phase in diagram.phases)
    oxygen = next(phase for phase in diagram.phases if phase.id == "O")
    assert oxygen.fractions == (1.0, 0.0)


def test_candidates_do_not_change_the_hull() -> None:
    hull = random_hull(3, seed=0)
    deep, high = entry("deep", "LiFeP2", -9.0), entry("high", "LiFeP", -2.0)
    diagram = phase_diagram(hull, ELEMENTS[:3], entries=[deep, high, hull.entries[4]])
    candidates = {phase.id: phase for phase in diagram.phases if phase.candidate}
    assert set(candidates) == {"deep", "high"}
    assert candidates["deep"].distance == pytest.approx(hull.energy_above_hull(deep))
    assert candidates["deep"].distance < 0
    assert not candidates["high"].stable
    plain = phase_diagram(hull, ELEMENTS[:3])
    lines = [{tuple(sorted((d.phases[a].id, d.phases[b].id))) for a, b in d.tie_lines} for d in (diagram, plain)]
    assert lines[0] == lines[1]


def test_only_the_elements_are_stable() -> None:
    hull = Hull([entry("Li", "Li", 0.0), entry("Fe", "Fe", 0.0), entry("P", "P", 0.0), entry("x", "LiFeP", 0.5)])
    diagram = phase_diagram(hull, ("Li", "Fe", "P"))
    assert len(diagram.tie_lines) == 3
    assert [phase.stable for phase in diagram.phases] == [True, True, True, False]


@pytest.mark.parametrize("n_elements", [2, 3, 4])
def test_drawings_name_the_phases(tmp_path: Path, n_elements: int) -> None:
    hull = random_hull(n_elements, seed=0)
    elements = ELEMENTS[:n_elements]
    candidate = entry("<new>", "".join(elements), -9.0)
    path = tmp_path / "hull.html"
    diagram = draw_phase_diagram(hull, path, system="-".join(elements), entries=[candidate])
    page = path.read_text()
    assert page.count("<tr>") == len(diagram.phases) + 1
    assert "&lt;new&gt;" in page
    assert "<new>" not in page
    assert "http" not in re.sub(r"<!DOCTYPE[^>]*>", "", page)  # opens offline
    assert f"Convex hull of {'-'.join(elements)}" in page


def test_the_same_hull_is_the_same_drawing(tmp_path: Path) -> None:
    hull = random_hull(2, seed=0)
    drawn = []
    for name in ("a.svg", "b.svg"):
        diagram = draw_phase_diagram(hull, tmp_path / name, system="Li-Fe")
        drawn.append((tmp_path / name).read_bytes())
    assert drawn[0] == drawn[1]
    # A polyline per tie line, among others.
    assert drawn[0].count(b'<g id="line2d_') >= len(diagram.tie_lines) > 0


def test_without_a_system_the_entries_say_what_is_drawn(tmp_path: Path) -> None:
    hull = random_hull(4, seed=1)
    diagram = draw_phase_diagram(hull, tmp_path / "t.png", entries=[entry("x", "FeO", -7.0)])
    assert diagram.elements == ("Fe", "O")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert system_elements(hull, None) == ("Fe", "Li", "O", "P")


def test_what_cannot_be_drawn() -> None:
    hull = random_hull(4, seed=1)
    path = Path("never-written.svg")
    for draw in (draw_phase_diagram, draw_chemical_potentials):
        with pytest.raises(SettingsError, match=r"none of \.svg, \.png, \.html"):
            draw(hull, Path("t.pdf"), system="Li-O")
        with pytest.raises(SettingsError, match="Li has 1 elements"):
            draw(hull, path, system="Li")
        with pytest.raises(InvalidCrystalError, match="'Q' is not an element"):
            draw(hull, path, system="Li-Q")
        with pytest.raises(MissingReferenceError, match="Na"):
            draw(hull, path, system="Li-Na")
    with pytest.raises(SettingsError, match="4 elements; chemical potentials are drawn of two or three"):
        draw_chemical_potentials(hull, path)
    assert not path.exists()


# --- chemical potentials ------------------------------------------------------------------------------------------


def formation_energies(hull: Hull, elements: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids, fractions (n, k) and formation energies (n,) of all entries."""
    numbers = [ATOMIC_NUMBERS[symbol] for symbol in elements]
    fractions = np.array([[e.composition.fractions.get(z, 0.0) for z in numbers] for e in hull.entries])
    energies = np.array([hull.formation_energy_per_atom(e.composition, e.energy_per_atom) for e in hull.entries])
    return [e.id for e in hull.entries], fractions, energies


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_point_lies_in_the_field_of_the_phase_that_forms_there(seed: int) -> None:
    elements = ELEMENTS[:3]
    hull = random_hull(3, seed=seed)
    diagram = chemical_potential_diagram(hull, elements)
    fields = {field.id: field for field in diagram.fields}
    assert set(fields) == {e.id for e in hull.stable_entries(tolerance=1e-9)}
    ids, fractions, energies = formation_energies(hull, elements)
    rng = np.random.default_rng(seed)
    checked = 0
    for x, y in rng.uniform(diagram.lowest, 0.0, (400, 2)):
        # Highest potential of the third element at which nothing precipitates, and what would.
        room = energies - fractions[:, :2] @ (x, y)
        with_third = fractions[:, 2] > 0
        if (room[~with_third] < 0).any():
            assert not any(contains(field, (x, y), -1e-6) for field in diagram.fields)
            continue
        ceiling = np.full(len(ids), np.inf)
        ceiling[with_third] = room[with_third] / fractions[with_third, 2]
        first, second = np.argsort(ceiling)[:2]
        if ceiling[second] - ceiling[first] < 1e-3:
            continue  # on a border
        checked += 1
        assert contains(fields[ids[first]], (x, y), 1e-9), (ids[first], x, y)
    assert checked > 50


def contains(field: object, point: tuple[float, float], radius: float) -> bool:
    corners = field.corners  # type: ignore[attr-defined]
    if len(corners) < 3:
        return False
    centre = corners.mean(axis=0)
    grown = centre + (corners - centre) * (1 + radius)
    return bool(Outline(grown).contains_point(point))


def test_the_potentials_of_two_elements_are_a_chain_of_edges() -> None:
    hull = random_hull(2, seed=0)
    diagram = chemical_potential_diagram(hull, ("Li", "Fe"))
    ids, fractions, energies = formation_energies(hull, ("Li", "Fe"))
    assert len(diagram.fields) == len(hull.stable_entries(tolerance=1e-9)) >= 4
    for field in diagram.fields:
        assert field.is_edge
        row = ids.index(field.id)
        # Along its edge a phase is in equilibrium, and nothing else precipitates.
        np.testing.assert_allclose(field.corners @ fractions[row], energies[row], atol=1e-9)
        assert (field.corners @ fractions.T <= energies + 1e-9).all()
    lithium = next(field for field in diagram.fields if field.id == "Li")
    assert lithium.limits[0] == (0.0, 0.0)
    assert lithium.limits[1][0] == -np.inf


def test_the_order_of_elements_only_turns_the_diagram() -> None:
    hull = random_hull(3, seed=0)
    one, other = (chemical_potential_diagram(hull, order) for order in (ELEMENTS[:3], ("P", "Li", "Fe")))
    assert limits(one) == limits(other)


def limits(diagram: ChemicalPotentialDiagram) -> dict[str, list[tuple[str, float, float]]]:
    return {
        field.id: sorted(
            (symbol, round(low, 9) + 0.0, round(high, 9) + 0.0)
            for symbol, (low, high) in zip(diagram.elements, field.limits, strict=True)
        )
        for field in diagram.fields
    }


def test_the_drawing_of_chemical_potentials(tmp_path: Path) -> None:
    hull = random_hull(3, seed=0)
    path = tmp_path / "c.html"
    diagram = draw_chemical_potentials(hull, path, system="Li-Fe-P")
    page = path.read_text()
    assert page.count("<tr>") == len(diagram.fields) + 1
    lithium = next(field for field in diagram.fields if field.id == "Li")
    assert lithium.limits[0] == (0.0, 0.0)
    (row,) = re.findall(r"<tr><td>Li</td><td>Li</td>(.*?)</tr>", page)
    assert row == f"<td>0.000</td><td>up to {lithium.limits[1][1]:.3f}</td><td>up to {lithium.limits[2][1]:.3f}</td>"
    draw_chemical_potentials(hull, tmp_path / "c.png", system="Li-Fe")
    assert (tmp_path / "c.png").stat().st_size > 5000
