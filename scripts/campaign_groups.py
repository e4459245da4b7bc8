"""Tables of a campaign's page that tell where hits and misses are: by confidence, and by anion."""

from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq

from opengnome.campaign import CampaignResults
from opengnome.campaign.alignment import differences, left_by_shifts
from opengnome.campaign.conversion import has_energy
from opengnome.campaign.events import Choice
from opengnome.campaign.selection import MODEL
from opengnome.campaign.strained import is_strained
from opengnome.crystals import Composition
from opengnome.crystals.elements import ATOMIC_NUMBERS
from opengnome.hull import STABILITY_TOLERANCE
from opengnome.report.numbers import Rate, mev

ANIONS = ("F", "Cl", "Br", "I", "O", "S", "Se", "Te", "N", "P", "As")
NEAR = 0.05
"""What counts as near the hull, eV/atom."""
SURE = 0.9
"""Predicted probability of being stable."""
PARTS = 4
"""Parts of a round's choice, by confidence."""


def calculated_distance(results: CampaignResults, choice: Choice) -> float | None:
    """Distance of a chosen crystal to the initial hull as calculated, eV/atom; None where that failed."""
    entry = results.entries.get(choice.candidate_id)
    if entry is None:
        return None
    hull = results.knowledge.initial_hull
    formation = hull.formation_energy_per_atom(entry.composition, entry.corrected_energy_per_atom)
    return formation - choice.initial_hull_energy_per_atom


def chosen_by_model(results: CampaignResults) -> dict[int, list[Choice]]:
    """The model's choice of each closed round."""
    return {
        number: [choice for choice in current.selection.choices if MODEL in choice.arms]
        for number, current in sorted(results.state.rounds.items())
        if current.selection is not None and current.closed is not None
    }


def by_confidence(results: CampaignResults) -> str:
    """Hit rates of the parts of each round's choice, the surest first."""
    quarters = [f"{word} quarter" for word in ("surest", "second", "third", "last")]
    head = ["round", "compositions within the window", "of these surer than 90 %", *quarters, "within 50 meV/atom"]
    rows = []
    for number, choices in chosen_by_model(results).items():
        surest = sorted(choices, key=lambda c: -_certainty(c))
        parts = [surest[len(surest) * k // PARTS : len(surest) * (k + 1) // PARTS] for k in range(PARTS)]
        pool = _probabilities(results, number)
        sure = int((pool > SURE).sum())
        near = rate(results, choices, within=NEAR)
        quarter_rates = [str(rate(results, part)) for part in parts]
        rows.append([str(number), f"{len(pool):,}", f"{sure:,}", *quarter_rates, str(near)])
    text = (
        "The model's choice (hits against the initial hull) by how many standard deviations below the hull it was "
        "predicted:"
    )
    return f"{text}\n\n{markdown(head, rows)}"


def _probabilities(results: CampaignResults, number: int) -> np.ndarray:
    """Predicted probability of being stable of each composition that a round could choose, shape (n,)."""
    selection = results.state.round(number).selection
    if selection is None:
        return np.empty(0)
    return pq.read_table(results.root / selection.path, columns=["probability_stable"])[0].to_numpy()


def _certainty(choice: Choice) -> float:
    """Predicted depth below the hull of its round over the predicted standard deviation."""
    std = choice.predicted_std or np.inf
    return -choice.predicted_decomposition_energy / std


def rate(results: CampaignResults, choices: Sequence[Choice], *, within: float = STABILITY_TOLERANCE) -> Rate:
    """Hits against the initial hull, or what was calculated `within` eV/atom of it."""
    distances = [calculated_distance(results, choice) for choice in choices]
    return Rate(sum(d is not None and d <= within for d in distances), len(distances))


def by_anion(results: CampaignResults) -> str:
    """The model's hits by anion, beside how well the oracle agrees with the known set for it after the shifts."""
    agreement = _agreement(results)
    choices = [choice for of_round in chosen_by_model(results).values() for choice in of_round]
    rows = []
    for symbol in ANIONS:
        z = ATOMIC_NUMBERS[symbol]
        with_it = [c for c in choices if z in Composition.from_formula(c.reduced_formula).fractions]
        if with_it:
            rows.append([symbol, *agreement.get(symbol, ("", "", "")), str(rate(results, with_it))])
    if not rows:
        return ""
    head = [
        "anion",
        "known compounds relaxed",
        "median left, meV/atom",
        "MAE left, meV/atom",
        "model's hits, all rounds",
    ]
    text = (
        "Hits by anion (a crystal with two counts twice), and what the shifts leave between table and oracle for known "
        "compounds with at least 15 % of it, cross-validated; positive: the oracle is too low."
    )
    return f"{text}\n\n{markdown(head, rows)}"


def _agreement(results: CampaignResults) -> dict[str, tuple[str, str, str]]:
    """Number, median and mean absolute difference of known compounds by anion; empty where nothing was aligned."""
    _, fractions, left = _left(results)
    alignment = results.state.alignment
    symbols = [] if alignment is None else list(alignment.references)
    found = {}
    for symbol in set(ANIONS) & set(symbols):
        with_it = left[fractions[:, symbols.index(symbol)] >= 0.15]
        if len(with_it):
            found[symbol] = (str(len(with_it)), mev(float(np.median(with_it))), mev(float(np.abs(with_it).mean())))
    return found


def known_on_the_hull(results: CampaignResults) -> str:
    """How many known compounds on the hull the oracle would call hits: what its noise leaves of certainty."""
    ids, _, left = _left(results)
    if not len(left):
        return ""
    known, hull = results.knowledge.known, results.knowledge.initial_hull
    energies = dict(zip(known.table.ids, known.energies_per_atom.tolist(), strict=True))
    formulas = dict(zip(known.table.ids, known.table.reduced_formulas, strict=True))
    compositions = [Composition.from_formula(formulas[i]) for i in ids]
    on_hull = hull.energies_per_atom_at(compositions) + STABILITY_TOLERANCE >= np.array([energies[i] for i in ids])
    found = Rate(int((left[on_hull] >= -STABILITY_TOLERANCE).sum()), int(on_hull.sum()))
    return (
        f"Of the known compounds that the oracle relaxed and that lie on the initial hull it finds {found} at or below "
        "their energy in the table: the others would be misses here, though they are stable."
    )


def _left(results: CampaignResults) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids (n) of the known compounds that were relaxed, fractions (n, elements), and what the shifts leave (n,)."""
    alignment, known = results.state.alignment, results.knowledge.known
    if alignment is None or not alignment.references:
        return [], np.empty((0, 0)), np.empty(0)
    answers = results.state.references.items()
    energies = {i: c.energy_per_atom for i, c in answers if not is_strained(i) and has_energy(c) and c.energy_per_atom}
    fractions, difference = differences(known, energies, dict(alignment.references))
    rows = zip(known.table.ids, known.table.reduced_formulas, strict=True)
    ids = [i for i, formula in rows if i in energies and Composition.from_formula(formula).n_elements > 1]
    return ids, fractions, left_by_shifts(fractions, difference)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
