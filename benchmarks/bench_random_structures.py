"""Random structures of 20 named compositions beside PyXtal and ASE's StartGenerator, in one run on one core.

    python -m venv .venv-random && .venv-random/bin/pip install pyxtal==1.1.5 ase-ga==1.0.3
    OMP_NUM_THREADS=1 python benchmarks/bench_random_structures.py --peer-python .venv-random/bin/python \\
        [--n 100] [--n-peer 20] [--output FILE.json]

Every generator makes cells of the same composition and number of atoms, and is timed in CPU seconds after a
warm-up. Each works in its own documented way:

- ours: `random_crystals` with the default settings but for the number of formula units, so 10 % in P1, the others
  in a random group; volumes of 0.4 to 1.2 of the estimate; our minimum distances. Also with P1 only.
- PyXtal: `from_random` in a random group of 2 to 230 that `check_compatible` accepts, its own distances and volume.
  Cells are conventional.
- ASE: `StartGenerator`, P1, three variable cell vectors, minimum distances 0.6 of the sum of covalent radii as in
  its manual, at the volume estimate that ours are scaled from.
- Both peers again with the minimum distances that ours have at the estimated volume ("strict", few crystals: slow).

A peer's crystal that takes longer than the limit fails; its time counts.

All crystals are then checked in the same way: shortest distance over the minimum of its pair, once with ours (for
the volume asked; those at the estimated volume for the peers) and once with 0.6 of the covalent radii, and the space
group that moyo finds (0.01 A).
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMPOSITIONS = {
    "NaCl": 2,
    "ZnS": 4,
    "CaF2": 4,
    "TiO2": 4,
    "SrTiO3": 2,
    "CsCl": 2,
    "Li2O": 4,
    "NiAs": 2,
    "Al2O3": 4,
    "MgAl2O4": 2,
    "BaTiO3": 4,
    "LiFePO4": 4,
    "YBa2Cu3O7": 1,
    "Si": 8,
    "Fe3O4": 2,
    "Mg2SiO4": 4,
    "Li3PO4": 2,
    "K2NiF4": 2,
    "Cu2ZnSnS4": 2,
    "Bi2Te3": 2,
}
"""Formula units per cell: 4 to 28 atoms."""
COVALENT_FRACTION = 0.6
SYMPREC = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, help="interpreter that has pyxtal and ase-ga; ours alone without")
    parser.add_argument("--n", type=int, default=100, help="our crystals per composition")
    parser.add_argument("--n-peer", type=int, default=20, help="crystals per composition of each peer")
    parser.add_argument("--n-strict", type=int, default=2, help="the same with our minimum distances")
    parser.add_argument("--limit", type=float, default=10.0, help="wall seconds after which a peer's crystal fails")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--as-peer", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_peer:
        _serve_peer(arguments.as_peer)
        return
    report = _compare(arguments)
    _print(report)
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


# --- In the project's environment -------------------------------------------------------------------------


def _compare(arguments: argparse.Namespace) -> dict[str, Any]:
    runs = {
        "ours": _run_ours(arguments, p1_share=None),
        "ours, P1 only": _run_ours(arguments, p1_share=1.0),
    }
    versions: dict[str, str] = {"python": platform.python_version()}
    if arguments.peer_python:
        for name, peer, strict in (
            ("PyXtal", "pyxtal", False),
            ("ASE StartGenerator", "ase", False),
            ("PyXtal, strict", "pyxtal", True),
            ("ASE StartGenerator, strict", "ase", True),
        ):
            if strict and not arguments.n_strict:
                continue
            print(f"running {name}", flush=True)
            answer = _ask_peer(arguments, peer, strict)
            versions |= answer["versions"]
            runs[name] = answer["compositions"]
    checked = {name: _check(run) for name, run in runs.items()}
    report: dict[str, Any] = {"processor": platform.processor() or platform.machine(), "versions": versions}
    report["settings"] = {name: getattr(arguments, name) for name in ("n", "n_peer", "n_strict", "limit", "seed")}
    report["runs"] = checked
    report["overall"] = {name: _overall(run) for name, run in checked.items()}
    peers = [
        o["structures_per_s"]
        for name, o in report["overall"].items()
        if not name.startswith("ours") and "strict" not in name
    ]
    if peers:
        report["times_the_fastest_peer"] = report["overall"]["ours"]["structures_per_s"] / max(peers)
    return report


def _run_ours(arguments: argparse.Namespace, p1_share: float | None) -> dict[str, Any]:
    from opengnome.crystals import Composition
    from opengnome.generation.random_settings import RandomStructureSettings
    from opengnome.generation.random_structures import random_crystals
    from opengnome.generation.wyckoff import N_SPACE_GROUPS, space_group

    start = time.process_time()
    for number in range(1, N_SPACE_GROUPS + 1):  # once per process; PyXtal's tables are files
        assert space_group(number).positions
    print(f"positions of the {N_SPACE_GROUPS} groups: {time.process_time() - start:.2f} s CPU, once per process")
    results = {}
    for formula, units in COMPOSITIONS.items():
        settings = RandomStructureSettings(min_formula_units=units, max_formula_units=units)
        if p1_share is not None:
            settings = settings.model_copy(update={"p1_share": p1_share})
        composition = Composition.from_formula(formula)
        random_crystals(composition, settings, seed=arguments.seed + 1, stop=1)
        start = time.process_time()
        table = random_crystals(composition, settings, seed=arguments.seed, stop=arguments.n)
        seconds = time.process_time() - start
        crystals = [
            {"lattice": c.lattice.tolist(), "frac": c.frac_coords.tolist(), "numbers": c.atomic_numbers.tolist()}
            for c in table
        ]
        names = ("asked_space_group", "asked_volume_scale", "volume_scale", "n_attempts")
        results[formula] = {
            "asked": arguments.n,
            "seconds": seconds,
            "crystals": crystals,
            **{name: table.column(name) for name in names},
        }
    return results


def _ask_peer(arguments: argparse.Namespace, peer: str, strict: bool) -> dict[str, Any]:
    """Have the peer's interpreter run this file as `--as-peer`; the job goes in, the crystals come out, as JSON."""
    import numpy as np

    from opengnome.crystals import Composition
    from opengnome.generation.radii import COVALENT_RADII
    from opengnome.generation.random_settings import RandomStructureSettings
    from opengnome.generation.random_structures import composition_rules

    jobs = {}
    for formula, units in COMPOSITIONS.items():
        composition = Composition.from_formula(formula).reduced
        rules = composition_rules(composition, RandomStructureSettings())
        radii = COVALENT_RADII[list(composition.atomic_numbers)]
        distances = rules.min_distances if strict else COVALENT_FRACTION * (radii[:, None] + radii)
        jobs[formula] = {
            "numbers": list(composition.atomic_numbers),
            "counts": [count * units for _, count in composition.counts],
            "min_distances": np.asarray(distances).tolist(),
            "volume": rules.volume_per_atom * composition.n_atoms * units,
        }
    n = arguments.n_strict if strict else arguments.n_peer
    job = {"compositions": jobs, "n": n, "limit": arguments.limit, "seed": arguments.seed, "strict": strict}
    command = [str(arguments.peer_python), __file__, "--as-peer", peer]
    done = subprocess.run(
        command,
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _check(run: dict[str, Any]) -> dict[str, Any]:
    """Per composition: success, speed, distances, symmetry."""
    import numpy as np

    from opengnome.crystals import Composition, Crystal
    from opengnome.crystals.symmetry import symmetry_dataset
    from opengnome.errors import InvalidCrystalError
    from opengnome.generation.radii import COVALENT_RADII
    from opengnome.generation.random_settings import RandomStructureSettings
    from opengnome.generation.random_structures import composition_rules
    from opengnome.generation.wyckoff import space_group

    results = {}
    for formula, made in run.items():
        composition = Composition.from_formula(formula).reduced
        rules = composition_rules(composition, RandomStructureSettings())
        radii = COVALENT_RADII[list(composition.atomic_numbers)]
        covalent = COVALENT_FRACTION * (radii[:, None] + radii)
        scales = made.get("asked_volume_scale", [1.0] * len(made["crystals"]))
        ratios, covalent_ratios, found, wrong = [], [], [], 0
        for data, scale in zip(made["crystals"], scales, strict=True):
            crystal = Crystal(np.array(data["lattice"]), np.array(data["frac"]), np.array(data["numbers"]))
            wrong += crystal.composition.reduced != composition
            ratios.append(_shortest_over(crystal, rules.min_distances_at(scale)))
            covalent_ratios.append(_shortest_over(crystal, covalent))
            try:
                dataset = symmetry_dataset(crystal, symprec=SYMPREC)
                found.append((dataset.number, len(dataset.rotations)))
            except InvalidCrystalError:
                found.append((0, 0))
        asked = made.get("asked_space_group", [1] * len(found))
        n = len(made["crystals"])
        results[formula] = {
            "n_atoms": composition.n_atoms * COMPOSITIONS[formula],
            "asked": made["asked"],
            "made": n,
            "wrong_composition": wrong,
            "seconds": made["seconds"],
            "ms_per_success": 1e3 * made["seconds"] / n if n else None,
            "share_within_our_distances": float(np.mean(np.array(ratios) >= 1 - 1e-6)) if n else None,
            "share_within_covalent_distances": float(np.mean(np.array(covalent_ratios) >= 1 - 1e-6)) if n else None,
            "asked_groups": _sorted_counts(asked),
            "found_groups": _sorted_counts([number for number, _ in found]),
            "found_is_asked": sum(a == number for a, (number, _) in zip(asked, found, strict=True)),
            "found_contains_asked": sum(
                number > 0 and n_operations % len(space_group(a)) == 0
                for a, (number, n_operations) in zip(asked, found, strict=True)
            ),
        }
        if "volume_scale" in made:
            growth = np.array(made["volume_scale"]) / np.array(made["asked_volume_scale"])
            results[formula] |= {
                "attempts_mean": float(np.mean(made["n_attempts"])),
                "last_resort": int(np.sum(np.array(made["n_attempts"]) > RandomStructureSettings().max_attempts)),
                "grown_share": float(np.mean(growth > 1.01)),
                "growth_mean": float(growth.mean()),
                "growth_max": float(growth.max()),
                "volume_scale_deciles": np.quantile(made["volume_scale"], np.linspace(0, 1, 11)).round(3).tolist(),
            }
    return results


def _shortest_over(crystal: Any, minimum: Any) -> float:
    """Shortest distance over the minimum of its pair; infinite where none is within the largest minimum."""
    import numpy as np
    from vesin import NeighborList

    neighbours = NeighborList(cutoff=float(minimum.max()) * 1.05, full_list=False)
    i, j, d = neighbours.compute(points=crystal.positions, box=crystal.lattice, periodic=True, quantities="ijd")
    elements = np.searchsorted(np.unique(crystal.atomic_numbers), crystal.atomic_numbers)
    return float((d / minimum[elements[i], elements[j]]).min(initial=np.inf))


def _sorted_counts(numbers: list[int]) -> dict[str, int]:
    return {str(number): count for number, count in sorted(Counter(numbers).items())}


def _overall(run: dict[str, Any]) -> dict[str, Any]:
    made, seconds = sum(r["made"] for r in run.values()), sum(r["seconds"] for r in run.values())
    asked_groups: Counter[str] = Counter()
    found_groups: Counter[str] = Counter()
    for result in run.values():
        asked_groups.update(result["asked_groups"])
        found_groups.update(result["found_groups"])

    def share(name: str) -> float:
        return sum(r["made"] * (r[name] or 0.0) for r in run.values()) / max(made, 1)

    return {
        "asked": sum(r["asked"] for r in run.values()),
        "made": made,
        "success_rate": made / sum(r["asked"] for r in run.values()),
        "wrong_composition": sum(r["wrong_composition"] for r in run.values()),
        "structures_per_s": made / seconds,
        "ms_per_success": 1e3 * seconds / max(made, 1),
        "share_within_our_distances": share("share_within_our_distances"),
        "share_within_covalent_distances": share("share_within_covalent_distances"),
        "found_is_asked": sum(r["found_is_asked"] for r in run.values()) / max(made, 1),
        "found_contains_asked": sum(r["found_contains_asked"] for r in run.values()) / max(made, 1),
        "n_asked_groups": len(asked_groups),
        "n_found_groups": len(found_groups),
        "found_by_crystal_system": _by_system(found_groups),
        "asked_by_crystal_system": _by_system(asked_groups),
    }


_LAST_OF_SYSTEM = {
    "triclinic": 2,
    "monoclinic": 15,
    "orthorhombic": 74,
    "tetragonal": 142,
    "trigonal": 167,
    "hexagonal": 194,
    "cubic": 230,
}


def _by_system(groups: Counter[str]) -> dict[str, float]:
    total = max(groups.total(), 1)
    shares, low = {}, 0
    for system, last in _LAST_OF_SYSTEM.items():
        shares[system] = round(sum(n for g, n in groups.items() if low < int(g) <= last) / total, 4)
        low = last
    return shares


def _print(report: dict[str, Any]) -> None:
    names = list(report["runs"])
    print("\nms CPU per success (made of asked)")
    print(f"{'':12s}" + "".join(f"{name:>36s}" for name in names))
    for formula in COMPOSITIONS:
        cells = []
        for name in names:
            r = report["runs"][name][formula]
            ms = "-" if r["ms_per_success"] is None else f"{r['ms_per_success']:.2f}"
            cells.append(f"{ms} ({r['made']} of {r['asked']})")
        n_atoms = report["runs"]["ours"][formula]["n_atoms"]
        print(f"{formula:9s}{n_atoms:3d}" + "".join(f"{cell:>36s}" for cell in cells))
    for name, o in report["overall"].items():
        print(
            f"\n{name}: {o['made']} of {o['asked']}, {o['structures_per_s']:.0f}/s, {o['ms_per_success']:.2f} ms; "
            f"within our distances {o['share_within_our_distances']:.3f}, within {COVALENT_FRACTION} covalent "
            f"{o['share_within_covalent_distances']:.3f}\n  {o['n_asked_groups']} groups asked, {o['n_found_groups']} "
            f"found; found is asked {o['found_is_asked']:.3f}, found contains asked {o['found_contains_asked']:.3f}"
            f"\n  asked {o['asked_by_crystal_system']}\n  found {o['found_by_crystal_system']}"
        )
    if "times_the_fastest_peer" in report:
        print(f"\nours is {report['times_the_fastest_peer']:.1f} times the fastest peer")


# --- In the peer's environment ----------------------------------------------------------------------------


class _TooLongError(Exception):
    pass


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooLongError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _serve_peer(name: str) -> None:
    import warnings

    warnings.simplefilter("ignore")
    job = json.loads(sys.stdin.read())
    results, versions = {}, {}
    for formula, own in job["compositions"].items():
        make, versions = PEERS[name](own | {"strict": job["strict"]}, job["seed"])
        if not results:
            _try(make, -1, job["limit"])
        start = time.process_time()
        made = [_try(make, i, job["limit"]) for i in range(job["n"])]
        crystals = [crystal for crystal in made if crystal is not None]
        seconds = time.process_time() - start
        results[formula] = {"asked": job["n"], "seconds": seconds, "crystals": crystals}
        if crystals and "group" in crystals[0]:
            results[formula]["asked_space_group"] = [crystal["group"] for crystal in crystals]
    print(json.dumps({"compositions": results, "versions": versions}))


def _try(make: Callable[[int], dict[str, Any] | None], i: int, limit: float) -> dict[str, Any] | None:
    try:
        with _limit(limit):
            return make(i)
    except _TooLongError:
        return None


def _pyxtal(job: dict[str, Any], seed: int) -> tuple[Callable[[int], dict[str, Any] | None], dict[str, str]]:
    from importlib.metadata import version

    import numpy as np
    from ase.data import chemical_symbols
    from pyxtal import pyxtal
    from pyxtal.symmetry import Group
    from pyxtal.tolerance import Tol_matrix

    species = [chemical_symbols[z] for z in job["numbers"]]
    pairs = [(a, b, job["min_distances"][i][j]) for i, a in enumerate(species) for j, b in enumerate(species) if i <= j]
    distances = {"tm": Tol_matrix(*pairs, prototype="atomic")} if job["strict"] else {}

    def make(i: int) -> dict[str, Any] | None:
        rng = np.random.default_rng([seed, i + 1, *job["numbers"], *job["counts"]])
        while True:
            group = int(rng.integers(2, 231))
            if Group(group, quick=False).check_compatible(job["counts"])[0]:
                break
        crystal = pyxtal()
        crystal.from_random(3, group, species, job["counts"], random_state=rng, **distances)
        if not crystal.valid:
            return None
        atoms = crystal.to_ase(resort=False)
        return {**_plain(atoms), "group": group}

    return make, {"pyxtal": version("pyxtal")}


def _ase(job: dict[str, Any], seed: int) -> tuple[Callable[[int], dict[str, Any] | None], dict[str, str]]:
    from importlib.metadata import version

    import numpy as np
    from ase import Atoms
    from ase_ga.startgenerator import StartGenerator
    from ase_ga.utilities import CellBounds

    numbers, minimum = job["numbers"], job["min_distances"]
    blmin = {(a, b): minimum[i][j] for i, a in enumerate(numbers) for j, b in enumerate(numbers)}
    blocks = [(Atoms(numbers=[z]), count) for z, count in zip(numbers, job["counts"], strict=True)]
    angles = {name: [35, 145] for name in ("phi", "chi", "psi")}
    bounds = CellBounds(bounds={**angles, **{name: [2, 50] for name in "abc"}})

    def make(i: int) -> dict[str, Any] | None:
        generator = StartGenerator(
            Atoms("", pbc=True),
            blocks,
            blmin,
            box_volume=job["volume"],
            number_of_variable_cell_vectors=3,
            cellbounds=bounds,
            rng=np.random.RandomState(seed + i + 1),
        )
        atoms = generator.get_new_candidate()
        return None if atoms is None else _plain(atoms)

    return make, {"ase-ga": version("ase-ga"), "ase": version("ase")}


def _plain(atoms: Any) -> dict[str, Any]:
    return {
        "lattice": atoms.cell[:].tolist(),
        "frac": atoms.get_scaled_positions().tolist(),
        "numbers": atoms.numbers.tolist(),
    }


PEERS: dict[str, Callable[..., Any]] = {"pyxtal": _pyxtal, "ase": _ase}


if __name__ == "__main__":
    main()
