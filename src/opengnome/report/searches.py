"""Section of the page about the compositional pipeline: which formulas were searched, and how the searches ended."""

from opengnome.campaign import CampaignResults
from opengnome.campaign.events import Choice, CompositionsProposed, Searched
from opengnome.hull import Entry
from opengnome.report import html
from opengnome.report.numbers import MISSING, mev, plus_minus
from opengnome.report.rounds import ARM_NAMES

_SHOWN = 20
_HEAD = [
    "formula",
    "chosen by",
    "random crystals relaxed",
    "converged",
    "of these at the lowest energy",
    "predicted to the hull, meV/atom",
    "found, meV/atom",
    "round",
]


def searches_section(results: CampaignResults) -> str:
    """Searched compositions; nothing for a campaign without the pipeline."""
    proposed = [r.compositions for _, r in sorted(results.state.rounds.items()) if r.compositions is not None]
    if not proposed:
        return ""
    text = html.paragraph(
        "New formulas are scored by the compositional model alone, and random crystals of the chosen ones are relaxed "
        "until the lowest energy keeps coming back. Distances are to the hull at the start of the round; a search that "
        "converged few times may have missed the lowest crystal."
    )
    rows = [_row(results, of, choice) for of in proposed for choice in of.choices]
    table = html.long_table(_HEAD, rows, shown=_SHOWN, numeric=[2, 3, 4, 5, 6, 7], words=[1])
    return html.section("Compositions", text, _counts(proposed), table, anchor="compositions")


def _counts(proposed: list[CompositionsProposed]) -> str:
    """Formulas after each filter, a column per round."""
    names = dict.fromkeys(name for of in proposed for name in of.counts)
    rows = [[html.text(name), *(html.text(f"{of.counts.get(name, 0):,}") for of in proposed)] for name in names]
    head = ["formulas", *(f"round {of.round}" for of in proposed)]
    return html.table(head, rows, numeric=list(range(1, len(proposed) + 1)))


def _row(results: CampaignResults, of: CompositionsProposed, choice: Choice) -> list[str]:
    search = results.state.round(of.round).searches.get(choice.candidate_id)
    return [
        html.formula(choice.reduced_formula),
        html.text(", ".join(ARM_NAMES[arm].partition(": ")[2] for arm in choice.arms)),
        *_runs(search),
        plus_minus(choice.predicted_decomposition_energy, choice.predicted_std),
        _distance(results, choice),
        html.text(of.round),
    ]


def _runs(search: Searched | None) -> tuple[str, str, str]:
    if search is None:
        return MISSING, MISSING, MISSING
    return html.text(search.n_starts), html.text(search.n_completed), html.text(search.n_lowest)


def _distance(results: CampaignResults, choice: Choice) -> str:
    entry: Entry | None = results.entries.get(choice.candidate_id)
    if entry is None:
        return MISSING
    formation = results.hull.formation_energy_per_atom(entry.composition, entry.corrected_energy_per_atom)
    return mev(formation - choice.hull_energy_per_atom)
