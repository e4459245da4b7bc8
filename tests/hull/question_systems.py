"""Systems that the tests of hull questions share: published, random, and full of ties; and pymatgen's view of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from opengnome.crystals import Composition
from opengnome.hull import Entry, Hull

ELEMENTS = (3, 8, 15, 26)


def read_entries(shared_data: Path, name: str) -> list[Entry]:
    """Entries of one file of `hull_entries`; elements are added at zero to tables of formation energies."""
    import pyarrow.parquet as pq

    rows = pq.read_table(shared_data / "hull_entries" / f"{name}.parquet").to_pylist()
    level = rows[0]["energy_kind"]
    entries = [
        Entry(
            row["id"],
            Composition.from_formula(row["formula"]),
            row["energy"] / row["n_atoms"],
            correction_per_atom=row["correction"] / row["n_atoms"],
            level=level,
        )
        for row in rows
    ]
    if level == "formation":
        elements = sorted({z for entry in entries for z in entry.composition.atomic_numbers})
        entries += [Entry(f"element-{z}", Composition.from_counts({z: 1}), 0.0, level=level) for z in elements]
    return entries


def random_entries(n_elements: int, n_compounds: int, seed: int) -> list[Entry]:
    """A system without ties: polymorphs, stable and unstable compounds, elements in two forms."""
    rng = np.random.default_rng(seed)
    elements = rng.choice(np.arange(19, 36), n_elements, replace=False).tolist()
    references = rng.uniform(-9, -1, n_elements)
    entries = [
        Entry(f"element-{z}-{form}", Composition.from_counts({z: form}), energy + 0.1 * (form - 1), level="PBE")
        for z, energy in zip(elements, references, strict=True)
        for form in (1, 2)
    ]
    for number, composition in enumerate(random_compositions(elements, n_compounds, seed, largest=4)):
        ideal = sum(references[elements.index(z)] * x for z, x in composition.fractions.items())
        entries.append(Entry(f"phase-{number}", composition, ideal + rng.normal(-0.3, 0.4), level="PBE"))
    return entries


def random_compositions(elements: Sequence[int], n: int, seed: int, *, largest: int = 7) -> list[Composition]:
    counts = np.random.default_rng(seed).integers(0, largest + 1, (n, len(elements)))
    counts[counts.sum(axis=1) == 0, 0] = 1
    return [Composition.from_counts({z: int(c) for z, c in zip(elements, row, strict=True) if c}) for row in counts]


@st.composite
def tied_systems(draw, *, smallest: int = 1, max_compounds: int = 12) -> list[Entry]:
    """Entries of one system of up to 4 elements, elements first, energies in quarters of an eV: many ties."""
    elements = ELEMENTS[: draw(st.integers(smallest, len(ELEMENTS)))]
    quarters = st.integers(-8, 4).map(lambda n: n / 4)
    counts = st.lists(st.integers(0, 3), min_size=len(elements), max_size=len(elements)).filter(any)
    compounds = draw(st.lists(st.tuples(counts, quarters), max_size=max_compounds))
    entries = [Entry(f"element-{z}", Composition.from_counts({z: 1}), draw(quarters), level="PBE") for z in elements]
    for number, (amounts, energy) in enumerate(compounds):
        composition = Composition.from_counts({z: n for z, n in zip(elements, amounts, strict=True) if n})
        entries.append(Entry(f"phase-{number}", composition, energy, level="PBE"))
    return entries


def to_pymatgen(composition: Composition):
    from pymatgen.core import Composition as PymatgenComposition
    from pymatgen.core import Element

    return PymatgenComposition({Element.from_Z(z): n for z, n in composition.counts})


def to_pd_entries(entries: Sequence[Entry]) -> list:
    """The entries as pymatgen's PDEntry, each named after the id."""
    from pymatgen.analysis.phase_diagram import PDEntry

    return [
        PDEntry(to_pymatgen(e.composition), e.corrected_energy_per_atom * e.composition.n_atoms, name=e.id)
        for e in entries
    ]


def fraction_matrix(hull: Hull, elements: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Atomic fractions (n, k) and energies (n,) of all entries, polymorphs too."""
    fractions = np.array([[e.composition.fractions.get(z, 0.0) for z in elements] for e in hull.entries])
    return fractions, np.array([e.corrected_energy_per_atom for e in hull.entries])
