"""A campaign directory as a run would leave it, with made-up energies: written, not run."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opengnome.campaign import CampaignSettings
from opengnome.campaign.alignment import no_alignment
from opengnome.campaign.conversion import entry_of, has_energy
from opengnome.campaign.events import (
    Aligned,
    Calculated,
    CampaignStarted,
    Choice,
    EnsembleAssembled,
    MemberTrained,
    RoundClosed,
    RoundOpened,
    Selected,
    ShardScreened,
)
from opengnome.campaign.journal import Journal
from opengnome.campaign.judging import hull_formation_energies
from opengnome.campaign.layout import Layout
from opengnome.campaign.metrics import round_metrics
from opengnome.crystals import Composition, Crystal, CrystalTable
from opengnome.crystals.io import write_table
from opengnome.datasets import load_known_set
from opengnome.hull import Hull
from opengnome.oracles import Calculation, OracleIdentity, Status, write_calculation
from opengnome.settings import to_toml, validate

LEVEL = "toy potential"
SHIFT = 0.1  # eV/atom: the aligned oracle puts every formation energy this much too high
ELEMENTS = ("Na", "K", "Mg", "Zr", "O", "Cl")
KNOWN = {
    **dict.fromkeys(ELEMENTS, 0.0),
    "NaCl": -2.0,
    "KCl": -2.1,
    "MgO": -3.0,
    "Na2O": -1.4,
    "K2O": -1.2,
    "ZrO2": -3.7,
    "Zr3O": -1.4,
    "NaO3": -0.4,
    "MgCl": -0.9,
}
"""Formation energies of the known set, eV/atom."""


@dataclass(frozen=True)
class Found:
    """A candidate: its formation energy, or how it failed."""

    formula: str
    energy: float | None
    arms: tuple[str, ...] = ("model",)
    status: Status = Status.CONVERGED
    reason: str = ""
    prediction_error: float = 0.02


ROUNDS = (
    (
        Found("Na2ZrO3", -2.95),
        Found("K2ZrO3", -2.60, ("model", "random_filtered")),
        Found("MgCl2", -2.05),
        Found("NaMgCl3", -2.05, prediction_error=-0.12),
        Found("NaKCl2", -1.9, ("random_filtered",), prediction_error=-0.2),
        Found("MgZrO3", -3.2, ("model",), prediction_error=-0.3),
        Found("NaK2", 0.3, ("random_unfiltered",), prediction_error=0.4),
        Found("KO3", None, ("random_unfiltered",), Status.EXPLODED, "the volume grew 3.2-fold <tag & more>"),
        Found("ZrCl4", None, ("model",), Status.UNCONVERGED, "200 steps, fmax 0.31 eV/A"),
    ),
    (
        Found("Na4ZrO4", -2.4),
        Found("Na2Zr2O5", -3.3),
        Found("NaKMgZrO4", -3.3),
        Found("K2MgO2", -2.1, ("random_filtered",)),
        Found("NaMg2", 0.2, ("random_unfiltered",), prediction_error=-0.5),
        Found("ZrCl3", None, ("model",), Status.TOO_DENSE, "0.4 A between atoms 1 and 2"),
    ),
    (Found("KMgCl3", -2.2), Found("Zr2MgO5", -3.2)),
)
"""The last round is left open."""

_ORACLE = OracleIdentity(name="ase", code="toy:Toy", version="1.2", level=LEVEL, settings_digest="0" * 64)
_VERSIONS = {"opengnome": "0.1.0", "python": "3.11"}


def write_known_table(path: Path) -> None:
    """The known set as a Parquet table of formation energies."""
    crystals = [grid_crystal(formula) for formula in KNOWN]
    ids = [f"known-{formula}" for formula in KNOWN]
    write_table(path, CrystalTable.from_crystals(crystals, ids, {"formation_energy_per_atom": list(KNOWN.values())}))


def grid_crystal(formula: str) -> Crystal:
    """Atoms of one formula unit on a cubic grid, 3 A apart."""
    composition = Composition.from_formula(formula)
    numbers = [z for z, n in composition.counts for _ in range(n)]
    size = int(np.ceil(len(numbers) ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return Crystal(3.0 * size * np.eye(3), grid[: len(numbers)] / size, np.array(numbers))


def make_settings(table: Path | None, *, aligned: bool = True) -> CampaignSettings:
    data = {
        "name": "Toy <oxides> & chlorides",
        "known": {"source": "embedded"} if table is None else {"source": str(table), "level": LEVEL},
        "rounds": {"n_rounds": len(ROUNDS), "budget": 5, "random_filtered": 2, "random_unfiltered": 2},
        "alignment": {"scheme": "per_element" if aligned else "none", "n_crystals": 10},
        "generation": {"allowed_elements": list(ELEMENTS)},
    }
    return validate(CampaignSettings, data)


def begin(root: Path, settings: CampaignSettings) -> None:
    """Settings and first event only."""
    root.mkdir(parents=True)
    Layout(root).settings.write_text(to_toml(settings))
    known = load_known_set(settings.known)
    with Journal(Layout(root).journal) as journal:
        journal.append(
            CampaignStarted(
                settings_digest=settings.digest, known_digest=known.digest, versions=_VERSIONS, reference_ids=()
            )
        )


def build_campaign(root: Path, *, n_closed: int = 2, aligned: bool = True) -> Path:
    """A campaign of `n_closed` closed rounds and one in the middle of its relaxations; returns `root`."""
    table = root.parent / f"{root.name}-known.parquet"
    write_known_table(table)
    settings = make_settings(table, aligned=aligned)
    begin(root, settings)
    alignment = _alignment() if aligned else no_alignment()
    hull = initial = Hull(load_known_set(settings.known).entries)
    (root / "calculations").mkdir()
    with Journal(Layout(root).journal) as journal:
        journal.append(alignment)
        for number, found in enumerate(ROUNDS[: n_closed + 1], start=1):
            closed = number <= n_closed
            hull = _write_round(root, journal, number, found, alignment, initial, hull, closed=closed)
    return root


def _write_round(root, journal, number, found, alignment, initial, hull, *, closed):
    journal.append(RoundOpened(round=number, n_parents=10, n_shards=1, n_training=80, hull_digest=hull.digest))
    _write_models(root, journal, number)
    counts = {"proposed": 1200 + number, "charges do not balance": 700, "duplicate": 100, "kept": 400 + number}
    journal.append(ShardScreened(round=number, shard=0, path="shard", counts=counts))
    choices = tuple(_choice(f, initial, hull) for f in sorted(found, key=lambda f: f.formula))
    later = {"generated": 400 + number, "predicted": 390, "within_window": 60, "lowest_per_composition": 40}
    journal.append(Selected(round=number, counts={**counts, **later}, choices=choices, path="pool"))
    done = found if closed else found[:1]
    calculations = {c.crystal_id: c for c in (_calculate(root, number, f, alignment) for f in done)}
    for calculated in calculations.values():
        journal.append(calculated)
    entries = {i: entry_of(c, alignment, level=LEVEL) for i, c in calculations.items() if has_energy(c)}
    after = hull.with_entries(tuple(entries.values()))
    if closed:
        metrics = round_metrics(choices, calculations, entries, initial_hull=initial, current_hull=after)
        journal.append(RoundClosed(round=number, metrics=metrics))
    return after


def _write_models(root: Path, journal: Journal, number: int) -> None:
    for member in range(4):
        journal.append(MemberTrained(round=number, member=member, path="member", metrics={}))
    folder = Layout(root).ensemble(number)
    folder.mkdir(parents=True)
    manifest = {
        "calibration": {"floor": 0.03, "slope": 1.0, "factors": []},
        "metrics": {
            "judged_on": "held-out crystals",
            "n": 50,
            "mae": 0.041,
            "median_absolute_error": 0.02,
            "coverage": {"0.50": 0.46, "0.80": 0.78, "0.90": 0.88, "0.95": 0.96},
            "warnings": ["the toy model is a toy"],
        },
    }
    (folder / "ensemble.json").write_text(json.dumps(manifest))
    path = Layout(root).relative(folder)
    journal.append(EnsembleAssembled(round=number, path=path, digest="e" * 64, metrics={"mae": 0.041, "n": 50.0}))


def _choice(found: Found, initial: Hull, hull: Hull) -> Choice:
    composition = Composition.from_formula(found.formula)
    predicted = (found.energy if found.energy is not None else 0.0) + found.prediction_error
    hull_energy = float(hull_formation_energies(hull, [composition])[0])
    return Choice(
        candidate_id=identifier(found.formula),
        reduced_formula=found.formula,
        arms=found.arms,
        predicted_formation_energy_per_atom=predicted,
        predicted_std=0.06,
        predicted_decomposition_energy=predicted - hull_energy,
        hull_energy_per_atom=hull_energy,
        initial_hull_energy_per_atom=float(hull_formation_energies(initial, [composition])[0]),
        probability_stable=0.5,
        volume_scale=1.0,
        method="ionic_substitution",
        parent_ids=("known-NaCl",),
        replaced="Na+->K+; Cl-->O2- (1 of 2)",
    )


def identifier(formula: str) -> str:
    return f"ion-{formula}-0123456789"


def _calculate(root: Path, number: int, found: Found, alignment: Aligned) -> Calculated:
    crystal = grid_crystal(found.formula)
    shift = SHIFT if alignment.shifts else 0.0
    energy = None if found.energy is None else (found.energy + shift) * crystal.n_atoms
    path = root / "calculations" / f"{identifier(found.formula)}.parquet"
    write_calculation(
        path,
        Calculation(
            status=found.status,
            reason=found.reason,
            initial=crystal,
            crystal=None if energy is None else crystal,
            energy=energy,
            forces=None,
            stress=None,
            frames=None,
            n_steps=20,
            fmax=0.04,
            seconds=1.5,
            oracle=_ORACLE,
        ),
    )
    return Calculated(
        round=number,
        crystal_id=identifier(found.formula),
        reduced_formula=found.formula,
        status=found.status.value,
        reason=found.reason,
        energy_per_atom=None if energy is None else energy / crystal.n_atoms,
        n_steps=20,
        seconds=1.5,
        path=Layout(root).relative(path),
    )


def _alignment() -> Aligned:
    return Aligned(
        scheme="per_element",
        references=dict.fromkeys(ELEMENTS, 0.0),
        shifts=dict.fromkeys(ELEMENTS, -SHIFT),
        metrics={
            "n_crystals": 10.0,
            "n_failed": 1.0,
            "offset_before": 0.1,
            "mae_before": 0.11,
            "mae_after": 0.021,
            "median_error_after": 0.015,
            "std_after": 0.025,
        },
    )
