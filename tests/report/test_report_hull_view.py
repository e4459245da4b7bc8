from itertools import combinations

import numpy as np
import pytest
from synthetic_campaign import build_campaign

from opengnome.campaign import CampaignResults
from opengnome.errors import InvalidCrystalError, MissingReferenceError, SettingsError
from opengnome.report.hull_view import default_system, hull_view, lower_edge, tie_lines


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return CampaignResults(build_campaign(tmp_path_factory.mktemp("campaign") / "toy"))


def phase_diagram(view):
    """pymatgen's phase diagram of the same phases."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

    entries = [
        PDEntry(dict(zip(view.elements, p.fractions, strict=True)), p.formation_energy_per_atom, p.reduced_formula)
        for p in view.phases
    ]
    return PhaseDiagram(entries)


@pytest.mark.parametrize("system", ["Zr-Na-O", "Mg-Cl-Na", "K-O-Zr", "Na-K-Cl"])
def test_stable_phases_and_tie_lines_equal_pymatgens(results, system):
    view = hull_view(results, system)
    diagram = phase_diagram(view)
    assert {p.reduced_formula for p in view.stable} == {e.name for e in diagram.stable_entries}
    expected = {
        frozenset(diagram.qhull_entries[vertex].name for vertex in pair)
        for facet in diagram.facets
        for pair in combinations(facet, 2)
    }
    names = [p.reduced_formula for p in view.stable]
    assert {frozenset((names[a], names[b])) for a, b in tie_lines(view)} == expected


def test_the_edge_of_a_two_element_system_equals_pymatgens(results):
    view = hull_view(results, "Mg-Cl")
    edge = lower_edge(view, known_only=False)
    assert {p.reduced_formula for p in edge} == {e.name for e in phase_diagram(view).stable_entries}
    assert [p.fractions[1] for p in edge] == sorted(p.fractions[1] for p in edge)
    assert [p.reduced_formula for p in lower_edge(view, known_only=True)] == ["Cl2", "MgCl", "Mg"]


def test_three_elements_without_a_compound_have_the_three_edges(results):
    view = hull_view(results, "Na-K-Mg")
    assert {p.reduced_formula for p in view.stable} == {"Na", "K", "Mg"}
    assert tie_lines(view) == [(0, 1), (0, 2), (1, 2)]


def test_distances_are_those_of_the_hull(results):
    view = hull_view(results, "O-Na")
    for phase in view.phases:
        expected = phase.formation_energy_per_atom - np.interp(
            phase.fractions[1],
            [p.fractions[1] for p in lower_edge(view, known_only=False)],
            [p.formation_energy_per_atom for p in lower_edge(view, known_only=False)],
        )
        assert phase.distance == pytest.approx(expected, abs=1e-9)


def test_discoveries_and_known_phases_are_told_apart(results):
    by_formula = {p.reduced_formula: p for p in hull_view(results, "Na-O-Zr").phases}
    assert by_formula["Na2ZrO3"].discovered
    assert by_formula["Na2O"].stable
    assert not by_formula["Na2O"].calculated
    assert by_formula["Na4ZrO4"].calculated
    assert not by_formula["Na4ZrO4"].discovered


def test_the_default_is_the_deepest_discovery_that_can_be_drawn(results):
    assert default_system(results) == "Cl-Mg"


@pytest.mark.parametrize(
    ("system", "error", "words"),
    [
        ("Na", SettingsError, "one element"),
        ("Na-Xx", InvalidCrystalError, "'Xx'"),
        ("Na-Fe", MissingReferenceError, "Fe"),
    ],
)
def test_systems_that_cannot_be_drawn_are_refused(results, system, error, words):
    with pytest.raises(error, match=words):
        hull_view(results, system)
