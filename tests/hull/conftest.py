"""Entries in one line, and the same entries as a pymatgen phase diagram."""

from collections.abc import Callable, Sequence

import pytest

from opengnome.crystals import Composition
from opengnome.hull import Entry, Hull


def make_entry(entry_id: str, formula: str, energy_per_atom: float, level: str = "PBE") -> Entry:
    return Entry(entry_id, Composition.from_formula(formula), energy_per_atom, level=level)


@pytest.fixture(scope="session")
def entry() -> Callable[..., Entry]:
    return make_entry


@pytest.fixture(scope="session")
def phase_diagram() -> Callable[[Sequence[Entry]], object]:
    """Builds pymatgen's PhaseDiagram, each PDEntry named after the entry's id."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition as PymatgenComposition
    from pymatgen.core import Element

    def build(entries: Sequence[Entry]) -> PhaseDiagram:
        return PhaseDiagram(
            [
                PDEntry(
                    PymatgenComposition({Element.from_Z(z): n for z, n in e.composition.counts}),
                    e.corrected_energy_per_atom * e.composition.n_atoms,
                    name=e.id,
                )
                for e in entries
            ]
        )

    return build


@pytest.fixture
def lithium_iron_oxides() -> Hull:
    """Li-Fe-O with a stable ternary, a metastable polymorph of it, and an unstable compound; eV/atom."""
    return Hull(
        [
            make_entry("li", "Li", -1.9),
            make_entry("li-high", "Li", -1.8),
            make_entry("fe", "Fe", -8.3),
            make_entry("o", "O2", -4.9),
            make_entry("li2o", "Li2O", -4.9),
            make_entry("fe2o3", "Fe2O3", -8.0),
            make_entry("lifeo2", "LiFeO2", -7.0),
            make_entry("lifeo2-beta", "Li2Fe2O4", -6.95),
            make_entry("feo-high", "FeO", -5.0),
        ]
    )
