"""The composition rule: what it accepts of known compounds and of random formulas, gate by gate, and how fast.

    python benchmarks/composition_rule.py --data FOLDER [--output composition_rule.json] [--random 20000]

Known are the distinct reduced formulas of two elements or more in `mp_crystals.parquet` and `mp_compositions.parquet`
(the gates were designed on them); the formulas of `gnome_pbe.parquet` that are in neither serve as a check: of
the settings only `max_metallic_elements` was chosen with them in view. "Stable" is a decomposition energy at or
below zero in `mp_compositions`, "experimental" a match in the ICSD in `mp_crystals`.

Random formulas are of two kinds:

    uniform   2 to 5 of the elements allowed by default, 1 to 8 atoms of each, equally likely
    permuted  a known formula with its counts permuted and its elements replaced by distinct ones, drawn by how often
              they occur in known formulas

With metals only the rule has little to say, so every share is also given without such formulas ("nonmetal").
If SMACT can be imported its `smact_validity` is asked about a sample of the same formulas.
"""

import argparse
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from opengnome.crystals import Composition
from opengnome.crystals.elements import ELECTRONEGATIVITIES, SYMBOLS
from opengnome.generation.charge_rule import COMPOSITION_REASONS, accepted, accepts, judge, reason
from opengnome.generation.composition_assignment import assigned_states
from opengnome.generation.composition_enumeration import enumerate_by_charges, enumerate_by_filter, reduced_counts
from opengnome.generation.composition_settings import LITERAL_RULE, CompositionRuleSettings, CompositionSettings
from opengnome.generation.composition_states import element_table
from opengnome.generation.compositions import composition_batches, count_systems, formula_table
from opengnome.generation.novelty import composition_keys
from opengnome.generation.settings import GenerationSettings

RULE = CompositionRuleSettings()
NO_LIMIT = {"max_metallic_elements": None}
GATES = {
    "literal rule of the paper": LITERAL_RULE.model_copy(update=NO_LIMIT),
    "+ cation and anion, or metals": LITERAL_RULE.model_copy(update={"require_ions": True, **NO_LIMIT}),
    "+ limit of cations": RULE.model_copy(update={"limit_anions": False, "electronegativity_order": False, **NO_LIMIT}),
    "+ limit of anions": RULE.model_copy(update={"electronegativity_order": False, **NO_LIMIT}),
    "+ order of electronegativity": RULE.model_copy(update=NO_LIMIT),
    "+ at most 4 metallic elements": RULE,
}
VARIANTS = {
    "one element between states": {"max_between": 1},
    "none between states": {"max_between": 0},
    "without the order": {"electronegativity_order": False},
    "without the limit of anions": {"limit_anions": False},
    "without the limit of cations": {"limit_cations": False},
    "no tolerance of the order": {"order_tolerance": 0.0},
    "no peroxides and azides": {"max_peroxide_electronegativity": 0.0, "max_superoxide_electronegativity": 0.0},
    "no metallic cations": {"max_metallic_difference": 0.0, "max_interstitial_difference": 0.0},
    "no subvalent cations": {"max_subvalent_difference": 0.0},
    "metallic up to 3 elements": {"max_metallic_elements": 3},
    "no metals alone": {"max_metallic_elements": 1},
}
MUST_PASS = (
    "Li15Si4 NaCl Fe3O4 Na2O2 KO2 FeS2 CaC2 Mg2Si NaN3 CsI3 PbTe WSi2 Fe3C Mn4N PdH LaB6 CoSb3 Gd2Cl3 GdS NH4Cl NH4NO3 "
    "Na2S2O3 LiFePO4 YBa2Cu3O7 Li7La3Zr2O12 Ba8Ga16Ge30 CsAu NiTi Ni3Al BiFeO3 CH4 NaBH4 P2O5 UF6"
).split()
MUST_FAIL = "H2O11 TbSmF30 Na3Cl NaF2 NaCl3 K3Cl Na3Cl2 CaF7 LiO9 MgN12 Al5O2 AlCoCrFeNi".split()


class Formulas:
    """Compositions as arrays, and which of them are made of metals only."""

    def __init__(self, atomic_numbers: np.ndarray, counts: np.ndarray) -> None:
        self.atomic_numbers, self.counts = atomic_numbers, counts
        self.n_elements = (counts > 0).sum(axis=1)
        self.nonmetal = ((counts > 0) & ~element_table().is_metal[atomic_numbers]).any(axis=1)

    @classmethod
    def of(cls, compositions: list[Composition]) -> "Formulas":
        table = np.zeros((len(compositions), max(c.n_elements for c in compositions), 2), dtype=np.int64)
        for row, composition in zip(table, compositions, strict=True):
            row[: composition.n_elements] = composition.reduced.counts
        return cls(table[..., 0], table[..., 1])

    def __len__(self) -> int:
        return len(self.counts)

    def accepted(self, rule: CompositionRuleSettings) -> np.ndarray:
        return accepted(self.atomic_numbers, self.counts, rule)

    @property
    def family(self) -> np.ndarray:
        """Atomic number of the most electronegative nonmetal, zero for metals alone."""
        is_nonmetal = (self.counts > 0) & ~element_table().is_metal[self.atomic_numbers]
        x = np.where(is_nonmetal, np.nan_to_num(np.array(ELECTRONEGATIVITIES))[self.atomic_numbers], -1)
        strongest = np.take_along_axis(self.atomic_numbers, x.argmax(axis=1)[:, None], axis=1)[:, 0]
        return np.where(is_nonmetal.any(axis=1), strongest, 0)

    def take(self, rows: np.ndarray) -> "Formulas":
        return Formulas(self.atomic_numbers[rows], self.counts[rows])

    def compositions(self) -> list[Composition]:
        return [
            Composition.from_counts({z: n for z, n in zip(elements, counts, strict=True) if n})
            for elements, counts in zip(self.atomic_numbers.tolist(), self.counts.tolist(), strict=True)
        ]


def read_known(data: Path) -> tuple[Formulas, np.ndarray, np.ndarray, Formulas]:
    """Known formulas, which are stable, which experimental, and the formulas of the check."""
    crystals = pq.read_table(data / "mp_crystals.parquet", columns=["reduced_formula", "experimental"]).to_pydict()
    columns = ["reduced_formula", "decomposition_energy_per_atom"]
    compounds = pq.read_table(data / "mp_compositions.parquet", columns=columns).to_pydict()
    found = {f for f, flag in zip(crystals["reduced_formula"], crystals["experimental"], strict=True) if flag}
    energies = zip(compounds["reduced_formula"], compounds["decomposition_energy_per_atom"], strict=True)
    stable = {f for f, energy in energies if energy <= 0}
    names = sorted({*crystals["reduced_formula"], *compounds["reduced_formula"]})
    compositions = {name: Composition.from_formula(name) for name in names}
    names = [name for name in names if compositions[name].n_elements > 1]
    check = set(pq.read_table(data / "gnome_pbe.parquet", columns=["reduced_formula"]).to_pydict()["reduced_formula"])
    return (
        Formulas.of([compositions[name] for name in names]),
        np.array([name in stable for name in names]),
        np.array([name in found for name in names]),
        Formulas.of([Composition.from_formula(name) for name in sorted(check - set(names))]),
    )


def uniform(n: int, seed: int) -> Formulas:
    rng = np.random.default_rng(seed)
    allowed = np.flatnonzero(GenerationSettings().element_mask())
    elements = allowed[np.argsort(rng.random((n, len(allowed))), axis=1)[:, :5]]
    counts = rng.integers(1, 9, size=elements.shape)
    counts[np.arange(5) >= rng.integers(2, 6, size=n)[:, None]] = 0
    return Formulas(elements, counts)


def permuted(known: Formulas, n: int, seed: int) -> Formulas:
    rng = np.random.default_rng(seed)
    drawn = known.take(rng.integers(len(known), size=n))
    pool = known.atomic_numbers[known.counts > 0]
    elements, counts = np.zeros_like(drawn.atomic_numbers), np.zeros_like(drawn.counts)
    for row, size in enumerate(drawn.n_elements):
        own: list[int] = []
        while len(own) < size:
            z = int(rng.choice(pool))
            own += [z] if z not in own else []
        elements[row, :size] = own
        counts[row, :size] = rng.permutation(drawn.counts[row, drawn.counts[row] > 0])
    return Formulas(elements, counts)


def share(mask: np.ndarray, of: np.ndarray | slice = slice(None)) -> float:
    return round(float(mask[of].mean()), 4)


def trade_off(
    judge_with: Callable[[Formulas], np.ndarray],
    known: Formulas,
    stable: np.ndarray,
    experimental: np.ndarray,
    check: Formulas,
    random: dict[str, Formulas],
) -> dict[str, float]:
    passed = judge_with(known)
    row = {
        "known": share(passed),
        "known_nonmetal": share(passed, known.nonmetal),
        "stable": share(passed, stable),
        "stable_nonmetal": share(passed, stable & known.nonmetal),
        "experimental": share(passed, experimental),
        "gnome": share(judge_with(check)),
    }
    for name, formulas in random.items():
        passed = judge_with(formulas)
        row |= {name: share(passed), f"{name}_nonmetal": share(passed, formulas.nonmetal)}
    return row


def by_group(groups: dict[str, np.ndarray], labels: list[int], names: dict[str, np.ndarray]) -> dict[str, Any]:
    """Share accepted and number of formulas for each label, by kind of formulas."""
    return {
        str(label): {
            kind: [share(names[kind], groups[kind] == label), int((groups[kind] == label).sum())]
            for kind in groups
            if (groups[kind] == label).any()
        }
        for label in labels
    }


def named() -> dict[str, Any]:
    result = {}
    for formula in [*MUST_PASS, *MUST_FAIL]:
        composition = Composition.from_formula(formula)
        result[formula] = {
            "wanted": formula in MUST_PASS,
            "accepted": accepts(composition, RULE),
            "literal": accepts(composition, LITERAL_RULE),
            "states_or_reason": assigned_states(composition, RULE) or reason(composition, RULE),
        }
    return result


def seconds(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def enumeration_speed(max_atoms: int) -> dict[str, Any]:
    """Milliseconds per chemical system of allowed elements, both ways; the same formulas, or this stops."""
    allowed = np.flatnonzero(GenerationSettings().element_mask())
    rng = np.random.default_rng(0)
    result = {}
    for size, repeats in ((2, 60), (3, 60), (4, 40), (5, 20), (6, 10)):
        systems = [rng.choice(allowed, size, replace=False) for _ in range(repeats)]
        for way in (enumerate_by_charges, enumerate_by_filter):  # the tables that both keep are built once
            way(systems[0], max_atoms=max_atoms, rule=RULE)
        fast, t_fast = seconds(lambda: [enumerate_by_charges(s, max_atoms=max_atoms, rule=RULE) for s in systems])  # noqa: B023
        slow, t_slow = seconds(lambda: [enumerate_by_filter(s, max_atoms=max_atoms, rule=RULE) for s in systems])  # noqa: B023
        if not all(np.array_equal(a, b) for a, b in zip(fast, slow, strict=True)):
            raise SystemExit(f"the two enumerations differ for {size} elements")
        n_formulas = len(reduced_counts(size, max_atoms))
        result[str(size)] = {
            "formulas_per_system": n_formulas,
            "share_accepted": round(sum(map(len, fast)) / repeats / n_formulas, 4),
            "dynamic_program_ms": round(1e3 * t_fast / repeats, 3),
            "filter_ms": round(1e3 * t_slow / repeats, 3),
            "formulas_per_second": round(n_formulas * repeats / t_fast),
        }
    return result


def stream_speed(known: Formulas, budget_s: float = 5.0) -> dict[str, Any]:
    allowed = np.flatnonzero(GenerationSettings().element_mask()).tolist()
    known_keys = np.sort(composition_keys(known.atomic_numbers, known.counts))
    result = {}
    for size in (2, 3, 4):
        settings = CompositionSettings(min_elements=size, max_elements=size)
        start, fates, done, batch = time.process_time(), {}, 0, None
        for batch in composition_batches(settings, allowed, known_keys=known_keys, seed=0):
            fates = {name: fates.get(name, 0) + n for name, n in batch.fates.items()}
            done = batch.next_start
            if time.process_time() - start > budget_s:
                break
        spent = time.process_time() - start
        rows = np.random.default_rng(0).choice(len(batch), 500)
        _, t_table = seconds(lambda: formula_table(batch.take(rows), RULE, seed=0))  # noqa: B023
        result[str(size)] = {
            "systems": count_systems(settings, allowed),
            "systems_done": done,
            "systems_per_second": round(done / spent),
            "proposed_per_second": round(fates["proposed"] / spent),
            "kept_per_second": round(fates["kept"] / spent),
            "fates": fates,
            "table_microseconds_per_row": round(1e6 * t_table / 500),
        }
    return result


def known_in_enumeration(known: Formulas, max_atoms: int) -> dict[str, Any]:
    """Recall of the enumeration: of all known formulas, and of those small enough; checked on 300 systems."""
    passed = known.accepted(RULE)
    reduced = known.counts // np.gcd.reduce(known.counts, axis=1)[:, None]
    small = reduced.sum(axis=1) <= max_atoms
    rng, checked = np.random.default_rng(1), 0
    for row in rng.permutation(np.flatnonzero(small & (known.n_elements <= 5)))[:300]:
        size = known.n_elements[row]
        elements, counts = known.atomic_numbers[row, :size], reduced[row, :size]
        listed = enumerate_by_charges(elements, max_atoms=max_atoms, rule=RULE)
        if (listed == counts).all(axis=1).any() != passed[row]:
            raise SystemExit(f"{elements} {counts}: the enumeration and the rule disagree")
        checked += 1
    return {
        "max_atoms": max_atoms,
        "share_small_enough": share(small),
        "recall_of_small": share(passed, small),
        "recall_of_all": share(passed & small),
        "systems_checked": checked,
    }


def beside_smact(sets: dict[str, Formulas], n: int) -> dict[str, Any] | None:
    """Shares accepted and speed on the same n formulas of each kind, of at most 5 elements and 40 atoms."""
    try:
        from pymatgen.core import Composition as PymatgenComposition
        from smact.screening import smact_validity
    except ImportError:
        return None
    smact_options = {"smact_validity": {}, "smact_validity, mixed_valence": {"mixed_valence": True}}
    own_rules = {
        "default": RULE,
        "no metallic cations": RULE.model_copy(update=VARIANTS["no metallic cations"]),
        "none between states": RULE.model_copy(update=VARIANTS["none between states"]),
    }
    result: dict[str, Any] = {"version": importlib.metadata.version("smact")}
    for name, formulas in sets.items():
        rows = np.flatnonzero((formulas.n_elements <= 5) & (formulas.counts.sum(axis=1) <= 40))
        sample = formulas.take(np.random.default_rng(2).permutation(rows)[:n])
        asked = [PymatgenComposition({SYMBOLS[z]: count for z, count in c.counts}) for c in sample.compositions()]
        judges: dict[str, Callable[[], np.ndarray]] = {
            label: lambda options=options, asked=asked: np.array([bool(smact_validity(c, **options)) for c in asked])
            for label, options in smact_options.items()
        }
        judges |= {label: lambda rule=rule, sample=sample: sample.accepted(rule) for label, rule in own_rules.items()}
        result[name] = {}
        for label, ask in judges.items():
            answers, spent = seconds(ask)
            result[name][label] = {
                "share": share(answers),
                "share_nonmetal": share(answers, sample.nonmetal),
                "formulas_per_second": round(len(sample) / spent),
            }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--random", type=int, default=20_000, help="random formulas of each kind")
    parser.add_argument("--smact", type=int, default=1500, help="formulas of each kind given to SMACT")
    arguments = parser.parse_args()

    known, stable, experimental, check = read_known(arguments.data)
    random = {"uniform": uniform(arguments.random, 0), "permuted": permuted(known, arguments.random, 1)}
    sets = {"known": known, "gnome": check, **random}
    result: dict[str, Any] = {
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version()},
        "numbers": {
            **{name: len(formulas) for name, formulas in sets.items()},
            "nonmetal": {name: int(formulas.nonmetal.sum()) for name, formulas in sets.items()},
            "stable": int(stable.sum()),
            "experimental": int(experimental.sum()),
        },
    }
    print(result["numbers"], flush=True)

    def row_of(rule: CompositionRuleSettings) -> dict[str, float]:
        return trade_off(lambda formulas: formulas.accepted(rule), known, stable, experimental, check, random)

    rules = {**GATES, **{name: RULE.model_copy(update=update) for name, update in VARIANTS.items()}}
    result["gates"] = {}
    for name, rule in rules.items():
        result["gates"][name] = row = row_of(rule)
        print(f"{name:32s}", " ".join(f"{key} {value:.3f}" for key, value in row.items()), flush=True)

    passed = {name: formulas.accepted(RULE) for name, formulas in sets.items()}
    for name, mask in (("stable", stable), ("experimental", experimental)):
        passed[name], sets[name] = passed["known"][mask], known.take(np.flatnonzero(mask))
    sizes = {name: formulas.n_elements for name, formulas in sets.items()}
    families = {name: formulas.family for name, formulas in sets.items()}
    result["by_number_of_elements"] = by_group(sizes, [2, 3, 4, 5, 6, 7, 8], passed)
    numbers = np.bincount(families["known"])
    common = [z for z in np.argsort(-numbers).tolist() if numbers[z]]
    result["by_family"] = {
        SYMBOLS[int(z)] if int(z) else "metals": row for z, row in by_group(families, common, passed).items()
    }
    allowed = GenerationSettings().element_mask()
    usable = (allowed[known.atomic_numbers] | (known.counts == 0)).all(axis=1)
    result["known_of_allowed_elements"] = [share(passed["known"], usable), int(usable.sum())]
    for key in ("by_number_of_elements", "by_family"):
        for label, row in result[key].items():
            print(f"{key} {label:7s}", " ".join(f"{kind} {s:.3f} ({n})" for kind, (s, n) in row.items()))

    result["reasons"] = {}
    for name in ("known", "gnome", "uniform", "permuted"):
        formulas = sets[name]
        codes, spent = seconds(lambda: judge(formulas.atomic_numbers, formulas.counts, RULE))  # noqa: B023
        counted = np.bincount(codes, minlength=len(COMPOSITION_REASONS) + 1)
        row = {text: int(counted[code]) for code, text in COMPOSITION_REASONS.items()}
        result["reasons"][name] = {**row, "accepted": int(counted[0]), "formulas_per_second": round(len(codes) / spent)}
        print(name, result["reasons"][name])

    result["named"] = named()
    for formula, row in result["named"].items():
        print(f"{formula:14s} wanted {row['wanted']!s:5s} accepted {row['accepted']!s:5s} {row['states_or_reason']}")
    result["named_wrong"] = [f for f, row in result["named"].items() if row["wanted"] != row["accepted"]]
    print("wrong:", result["named_wrong"])

    result["known_in_enumeration"] = known_in_enumeration(known, 20)
    result["enumeration"] = enumeration_speed(20)
    result["stream"] = stream_speed(known)
    result["smact"] = beside_smact({k: sets[k] for k in ("known", "gnome", "uniform", "permuted")}, arguments.smact)
    for key in ("known_in_enumeration", "enumeration", "stream", "smact"):
        print(key, json.dumps(result[key], indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
