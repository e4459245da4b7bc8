"""The compositional pipeline of a round: which new formulas may have a crystal near the hull, by formula alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.campaign import work
from opengnome.campaign.acquisition import scores
from opengnome.campaign.context import Context
from opengnome.campaign.events import Choice, CompositionsProposed
from opengnome.campaign.execution import Unit
from opengnome.campaign.judging import hull_formation_energies
from opengnome.campaign.learning import refuse_lost
from opengnome.campaign.seeds import seed_for
from opengnome.campaign.selection import COMPOSITIONAL, RANDOM_COMPOSITIONS, Pool
from opengnome.campaign.settings import CompositionSearchSettings
from opengnome.campaign.state import CampaignState
from opengnome.campaign.train_compositional import elements_of
from opengnome.crystals import Composition
from opengnome.crystals.replacement import replace_file
from opengnome.datasets import held_out_mask
from opengnome.generation import (
    RANDOM_STRUCTURE,
    can_be_packed,
    composition_batches,
    known_composition_keys,
)
from opengnome.hull import Hull
from opengnome.models import CompositionalEnsemble, assemble_compositional, shipped_ensemble
from opengnome.models.calibration import MIN_FOR_FIT
from opengnome.models.checkpoint import load_checkpoint
from opengnome.models.compositional import CompositionalModel
from opengnome.models.manifest import member_paths

_NOT_PACKED = "random crystals cannot be made"
"""Fate of a plausible formula."""


@dataclass(frozen=True, eq=False)
class ScoredCompositions:
    """New plausible formulas with what is predicted of their lowest crystals."""

    compositions: Sequence[Composition]
    pool: Pool
    """Ids, formulas, predicted distances to the hull (eV/atom) and standard deviations."""
    hull_energy: np.ndarray
    """Formation energy of the hull at each formula, eV/atom, shape (n,)."""
    counts: dict[str, int]


def propose_compositions(context: Context, state: CampaignState, number: int) -> CompositionsProposed:
    """Retrain the compositional ensemble, score new formulas against the hull, and choose those to search."""
    settings, layout = context.settings.compositions, context.layout
    hull = context.knowledge.hull(state, before_round=number)
    ensemble = _ensemble(context, state, number, hull)
    scored = _scored(context, state, number, hull, ensemble)
    near = np.flatnonzero(scored.pool.decomposition_energy <= settings.window)
    arms = choose_compositions(scored, near, settings, seed=seed_for(context.settings.seed, "compositions", number))
    positions = sorted({i for chosen in arms.values() for i in chosen}, key=lambda i: scored.pool.ids[i])
    counts = scored.counts | {
        "within_window": len(near),
        **{f"chosen_{arm}": len(chosen) for arm, chosen in arms.items()},
    }
    _write(layout.compositions(number), scored)
    context.progress.message(
        f"round {number}: {counts['scored']} new compositions scored, {len(near)} within "
        f"{1e3 * settings.window:.0f} meV/atom, {len(positions)} to search"
    )
    initial = hull_formation_energies(context.knowledge.initial_hull, [scored.compositions[i] for i in positions])
    return CompositionsProposed(
        round=number,
        counts=counts,
        choices=tuple(_choice(scored, i, arms, e) for i, e in zip(positions, initial.tolist(), strict=True)),
        metrics={k: float(v) for k, v in ensemble.metrics.items() if isinstance(v, int | float)},
        path=layout.relative(layout.compositions(number)),
    )


def choose_compositions(
    scored: ScoredCompositions, near: np.ndarray, settings: CompositionSearchSettings, *, seed: int
) -> dict[str, list[int]]:
    """Positions chosen by the model, the most probably stable of `near`, and at random from all formulas.

    Of a chemical system each arm takes `max_per_system` formulas.
    """
    pool = scored.pool
    score = scores("probability_stable", pool.decomposition_energy, pool.std)
    by_probability = sorted(near.tolist(), key=lambda i: (score[i], pool.decomposition_energy[i], pool.ids[i]))
    at_random = sorted(range(len(pool.ids)), key=lambda i: seed_for(seed, RANDOM_COMPOSITIONS, pool.ids[i]))
    return {
        COMPOSITIONAL: _spread_over_systems(scored, by_probability, settings.budget, settings.max_per_system),
        RANDOM_COMPOSITIONS: _spread_over_systems(scored, at_random, settings.random, settings.max_per_system),
    }


def _spread_over_systems(scored: ScoredCompositions, order: Sequence[int], n: int, per_system: int) -> list[int]:
    taken: dict[str, int] = {}
    chosen: list[int] = []
    for i in order:
        if len(chosen) == n:
            break
        system = scored.compositions[i].chemical_system
        if taken.get(system, 0) < per_system:
            taken[system] = taken.get(system, 0) + 1
            chosen.append(i)
    return chosen


def lowest_energies(context: Context, state: CampaignState, number: int, hull: Hull) -> dict[str, float]:
    """Lowest formation energy of every composition with a label, eV/atom, by reduced formula.

    Known crystals, and the calculations of earlier rounds. A composition that was only searched has a label when at
    least `min_completed` relaxations converged: few runs give energies that are too high (the paper).
    """
    knowledge, settings = context.knowledge, context.settings.compositions
    few = {
        search.candidate_id
        for current in state.rounds.values()
        for search in current.searches.values()
        if search.n_completed < settings.min_completed
    }
    entries = [*knowledge.known.entries, *knowledge.entries(state, before_round=number)]
    lowest: dict[str, float] = {}
    for entry in entries:
        if entry.id in few or entry.composition.n_elements < 2:
            continue
        energy = hull.formation_energy_per_atom(entry.composition, entry.corrected_energy_per_atom)
        formula = entry.composition.reduced_formula
        lowest[formula] = min(energy, lowest.get(formula, np.inf))
    return lowest


def _ensemble(context: Context, state: CampaignState, number: int, hull: Hull) -> CompositionalEnsemble:
    """The shipped networks after some epochs on the lowest energies known, calibrated on those held out."""
    lowest = lowest_energies(context, state, number, hull)
    formulas = sorted(lowest)
    targets = np.array([lowest[formula] for formula in formulas])
    held_out = held_out_mask(formulas)
    if held_out.sum() < MIN_FOR_FIT:
        context.progress.message(
            f"round {number}: {int(held_out.sum())} held-out compositions are too few to calibrate a compositional "
            f"ensemble ({MIN_FOR_FIT} are needed); the shipped one is used as it is"
        )
        return CompositionalEnsemble.load(shipped_ensemble("compositional"))
    folder = context.layout.compositional(number)
    training_path = folder / "training.parquet"
    rows = pa.table({"formula": formulas, "target": targets, "held_out": held_out})
    replace_file(training_path, lambda path: pq.write_table(rows, path))
    n_members = context.settings.compositions.n_members
    units = [_member_unit(context, number, member, training_path) for member in range(n_members)]
    for ended in context.run(f"round {number}, compositional training", units):
        refuse_lost(ended)
    judged = [Composition.from_formula(f) for f, held in zip(formulas, held_out, strict=True) if held]
    card = {"n_train": int((~held_out).sum()), "n_held_out": int(held_out.sum())}
    return assemble_compositional(
        [unit.path for unit in units],
        context.layout.compositional_ensemble(number),
        compositions=judged,
        targets=targets[held_out],
        trained_on=_trained_on([f for f, held in zip(formulas, held_out, strict=True) if not held]),
        card=card,
    )


def _trained_on(formulas: Sequence[str]) -> set[int] | None:
    """Elements of these formulas, and of what the shipped networks that they began with have seen."""
    shipped = CompositionalEnsemble.load(shipped_ensemble("compositional")).elements
    return None if shipped is None else elements_of(formulas) | shipped


def _member_unit(context: Context, number: int, member: int, training_path: Path) -> Unit:
    shipped = member_paths(shipped_ensemble("compositional"))
    initial = shipped[member % len(shipped)]
    network = load_checkpoint(initial)[0]
    if not isinstance(network, CompositionalModel):
        raise TypeError(f"{initial} is not a compositional network")
    path = training_path.parent / "members" / f"{member}.safetensors"
    arguments = {
        "path": path,
        "log": path.with_suffix(".log"),
        "training_path": training_path,
        "model": network.settings,
        "training": context.settings.compositions.training,
        "seed": seed_for(context.settings.seed, "compositional member", number, member),
        "initial": initial,
    }
    return Unit(path, work.train_compositional, arguments, log=path.with_suffix(".log"))


def _scored(
    context: Context, state: CampaignState, number: int, hull: Hull, ensemble: CompositionalEnsemble
) -> ScoredCompositions:
    """The first `n_scored` new formulas of the round's stream with their predictions."""
    settings = context.settings.compositions
    compositions, proposed = _new_compositions(context, state, number)
    prediction = ensemble.predict(compositions)
    hull_energy = hull_formation_energies(hull, compositions)
    formulas = [composition.reduced_formula for composition in compositions]
    pool = Pool(
        [f"rss-{formula}" for formula in formulas],
        formulas,
        prediction.formation_energy_per_atom - hull_energy,
        prediction.std,
    )
    rejected = {name: n for name, n in proposed.items() if name != "kept"}
    counts = rejected | {"scored": len(compositions), "not scored": max(0, proposed["kept"] - settings.n_scored)}
    return ScoredCompositions(compositions, pool, hull_energy, counts)


def _new_compositions(context: Context, state: CampaignState, number: int) -> tuple[list[Composition], dict[str, int]]:
    """New plausible formulas of which crystals can be made, and the fates of all that were proposed to find them.

    New to what is known and to what the round's crystals are chosen from: a composition is calculated once.
    """
    settings = context.settings.compositions
    allowed = np.flatnonzero(context.generation.element_mask()).tolist()
    selection = state.round(number).selection
    chosen = () if selection is None else selection.choices
    known = frozenset(context.knowledge.formulas(state, number)).union(choice.reduced_formula for choice in chosen)
    stream = composition_batches(
        settings.proposals,
        allowed,
        known_keys=known_composition_keys(known),
        seed=seed_for(context.settings.seed, "composition stream", number),
    )
    compositions: list[Composition] = []
    fates: Counter[str] = Counter(kept=0)
    for batch in stream:
        proposed = [batch.composition(row) for row in range(len(batch))]
        packable = [composition for composition in proposed if can_be_packed(composition, settings.structures)]
        compositions += packable
        fates.update(batch.fates)
        if len(packable) < len(proposed):
            fates.update({"kept": len(packable) - len(proposed), _NOT_PACKED: len(proposed) - len(packable)})
        if len(compositions) >= settings.n_scored:
            break
    return compositions[: settings.n_scored], dict(fates)


def _choice(scored: ScoredCompositions, i: int, arms: dict[str, list[int]], initial_hull_energy: float) -> Choice:
    pool, hull_energy = scored.pool, float(scored.hull_energy[i])
    return Choice(
        candidate_id=pool.ids[i],
        reduced_formula=pool.reduced_formulas[i],
        arms=tuple(arm for arm, chosen in arms.items() if i in chosen),
        predicted_formation_energy_per_atom=float(pool.decomposition_energy[i] + hull_energy),
        predicted_std=float(pool.std[i]),
        predicted_decomposition_energy=float(pool.decomposition_energy[i]),
        hull_energy_per_atom=hull_energy,
        initial_hull_energy_per_atom=initial_hull_energy,
        probability_stable=float(pool.probability_stable[i]),
        volume_scale=1.0,
        method=RANDOM_STRUCTURE,
        parent_ids=(),
        replaced="",
    )


def _write(path: Path, scored: ScoredCompositions) -> None:
    pool = scored.pool
    table = pa.table(
        {
            "id": pool.ids,
            "reduced_formula": pool.reduced_formulas,
            "predicted_decomposition_energy": pool.decomposition_energy,
            "std": pool.std,
            "probability_stable": pool.probability_stable,
            "hull_energy_per_atom": scored.hull_energy,
        }
    )
    replace_file(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
