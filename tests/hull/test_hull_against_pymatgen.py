"""Distances, products and leave-one-out energies equal those of pymatgen's PhaseDiagram."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from opengnome.crystals import Composition
from opengnome.hull import Entry, Hull

TOLERANCE = 1e-8
# Entries further above the hull than this (eV/atom) are unstable.
UNSTABLE = 1e-6
SYSTEMS = ("Fe-Li-O-P", "Li-Fe-O", "Mn-O", "Mn-O-Y")
ALEXANDRIA_SYSTEMS = (
    *("Ba-Ti-O", "Ca-C-O", "Cu-Zn-O", "Fe-Cr-O", "Li-Co-O", "Li-Mn-O"),
    *("Li-Ni-O", "Li-P-S", "Li-Ti-O", "Mg-Si-O", "Na-Fe-O", "Ti-N-O"),
)
HULL_FILES = (*SYSTEMS, *(f"alexandria_{system}" for system in ALEXANDRIA_SYSTEMS))


def read_entries(path: Path) -> list[Entry]:
    """Entries of a shared table; elements of tables of formation energies are added at zero."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    level = rows[0]["energy_kind"]
    entries = [
        Entry(
            row["id"],
            Composition.from_formula(row["formula"]),
            row["energy"] / row["n_atoms"],
            correction_per_atom=row["correction"] / row["n_atoms"],
            correction_scheme="MP2020",
            level=level,
        )
        for row in rows
    ]
    if level == "formation":
        elements = sorted({z for entry in entries for z in entry.composition.atomic_numbers})
        entries += [Entry(f"element-{z}", Composition.from_counts({z: 1}), 0.0, level=level) for z in elements]
    return entries


def synthetic_entries(n_elements: int, n_compounds: int, seed: int) -> list[Entry]:
    """A random system with polymorphs, unstable compounds and elements in several forms."""
    rng = np.random.default_rng(seed)
    elements = rng.choice(np.arange(19, 36), n_elements, replace=False).tolist()
    references = rng.uniform(-9, -1, n_elements)
    entries = [
        Entry(f"element-{z}-{form}", Composition.from_counts({z: form}), energy + 0.1 * (form - 1), level="PBE")
        for z, energy in zip(elements, references, strict=True)
        for form in (1, 2)
    ]
    for number in range(n_compounds):
        counts = rng.integers(0, 5, n_elements)
        counts[rng.integers(n_elements)] += 1
        composition = Composition.from_counts({z: int(c) for z, c in zip(elements, counts, strict=True) if c})
        ideal = counts @ references / counts.sum()
        entries.append(Entry(f"phase-{number}", composition, ideal + rng.normal(-0.3, 0.4), level="PBE"))
    return entries


def random_compositions(hull: Hull, n: int, seed: int) -> list[Composition]:
    rng = np.random.default_rng(seed)
    elements = list(hull.elemental_references)
    counts = rng.integers(0, 8, (n, len(elements)))
    counts[counts.sum(axis=1) == 0, 0] = 1
    return [Composition.from_counts({z: int(c) for z, c in zip(elements, row, strict=True) if c}) for row in counts]


def to_pymatgen(composition: Composition):
    from pymatgen.core import Composition as PymatgenComposition
    from pymatgen.core import Element

    return PymatgenComposition({Element.from_Z(z): n for z, n in composition.counts})


def largest_differences(
    entries: Sequence[Entry], build, *, n_left_out: int, n_compositions: int = 20
) -> dict[str, float]:
    """Largest absolute difference from pymatgen per kind of question, eV/atom."""
    hull, diagram = Hull(entries), build(entries)
    reference = {e.name: e for e in diagram.all_entries}
    above = np.array([diagram.get_e_above_hull(reference[e.id]) for e in entries])
    bulk = hull.distances_from_hull([e.composition for e in entries], [e.corrected_energy_per_atom for e in entries])
    formation = [
        hull.formation_energy_per_atom(e.composition, e.corrected_energy_per_atom)
        - diagram.get_form_energy_per_atom(reference[e.id])
        for e in entries
    ]
    left_out = np.array([hull.decomposition_energy(e) for e in entries])
    unstable = above > UNSTABLE
    result = {
        "formation": np.abs(formation).max(),
        "above": max(abs(hull.energy_above_hull(e) - a) for e, a in zip(entries, above, strict=True)),
        "bulk": np.abs(bulk - above).max(),
        "left_out_unstable": np.abs(left_out - above)[unstable].max(initial=0.0),
    }
    compositions = random_compositions(hull, n_compositions, seed=1)
    result["at_compositions"] = max(
        abs(hull.energy_per_atom_at(c) - diagram.get_hull_energy_per_atom(to_pymatgen(c))) for c in compositions
    )
    result["products"] = max(product_difference(hull, diagram, c) for c in compositions)
    stable = [e for e, is_unstable in zip(entries, unstable, strict=True) if not is_unstable]
    compounds = [e for e in stable if e.composition.n_elements > 1]
    chosen = np.random.default_rng(2).permutation(len(compounds))[:n_left_out]
    result["left_out_stable"], result["without_polymorphs"] = 0.0, 0.0
    for left in (compounds[i] for i in chosen):
        for name, same_too in (("left_out_stable", False), ("without_polymorphs", True)):
            expected = brute_force_left_out(entries, left, build, exclude_polymorphs=same_too)
            difference = abs(hull.decomposition_energy(left, exclude_polymorphs=same_too) - expected)
            result[name] = max(result[name], difference)
    return result


def brute_force_left_out(entries, left: Entry, build, *, exclude_polymorphs: bool) -> float:
    """Distance of an entry to a phase diagram of its chemical system built without it."""
    elements = set(left.composition.atomic_numbers)
    lowest: dict[Composition, Entry] = {}
    for other in entries:
        key = other.composition.reduced
        skipped = other.id == left.id or (exclude_polymorphs and key == left.composition.reduced)
        if skipped or not elements.issuperset(other.composition.atomic_numbers):
            continue
        if key not in lowest or other.corrected_energy_per_atom < lowest[key].corrected_energy_per_atom:
            lowest[key] = other  # pymatgen's time is per entry, and higher polymorphs never matter
    energy = build(list(lowest.values())).get_hull_energy_per_atom(to_pymatgen(left.composition))
    return left.corrected_energy_per_atom - energy


def product_difference(hull: Hull, diagram, composition: Composition) -> float:
    """Largest difference of an amount; where several mixtures tie, of the energy of ours from the hull."""
    ours = {entry_id: amount for entry_id, _, amount in hull.decompose(composition).products}
    theirs = {e.name: amount for e, amount in diagram.get_decomposition(to_pymatgen(composition)).items()}
    by_id = {e.id: e for e in hull.entries}
    if ours.keys() != theirs.keys():
        mixed = sum(amount * by_id[i].corrected_energy_per_atom for i, amount in ours.items())
        atoms = {
            z: sum(amount * by_id[i].composition.fractions.get(z, 0.0) for i, amount in ours.items())
            for z in composition.atomic_numbers
        }
        balance = max(abs(atoms[z] - x) for z, x in composition.fractions.items())
        return max(balance, abs(mixed - diagram.get_hull_energy_per_atom(to_pymatgen(composition))))
    return max(abs(ours[i] - theirs[i]) for i in ours)


@pytest.mark.parametrize("name", HULL_FILES)
def test_equals_pymatgen_on_published_entries(name, shared_data, phase_diagram):
    entries = read_entries(shared_data / "hull_entries" / f"{name}.parquet")
    differences = largest_differences(entries, phase_diagram, n_left_out=25)
    assert max(differences.values()) < TOLERANCE, differences


@pytest.mark.parametrize(("n_elements", "n_compounds"), [(1, 0), (2, 0), (2, 25), (3, 40), (4, 60), (5, 80)])
def test_equals_pymatgen_on_entries_of_our_own(n_elements, n_compounds, phase_diagram):
    entries = synthetic_entries(n_elements, n_compounds, seed=n_elements)
    differences = largest_differences(entries, phase_diagram, n_left_out=6)
    assert max(differences.values()) < TOLERANCE, differences


def test_hull_files_listed_here_are_all_there_are(shared_data):
    found = {path.stem for path in (shared_data / "hull_entries").glob("*.parquet")}
    assert found == set(HULL_FILES)
