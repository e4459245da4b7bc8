"""Sections of the page about what was found: the hull of a system and the discoveries."""

import os
from pathlib import Path
from urllib.parse import quote

from opengnome.campaign import CampaignResults, Discovery
from opengnome.generation import Novelty
from opengnome.report import html
from opengnome.report.files import FOLDER, cif_path
from opengnome.report.hull_figure import hull_figure
from opengnome.report.hull_view import HullView, Phase, default_system, hull_view
from opengnome.report.numbers import fixed, mev, plus_minus

_SHOWN_DISCOVERIES = 40
_SHOWN_PHASES = 12
_METHODS = {
    "ionic_substitution": "ionic substitution",
    "partial_substitution": "partial substitution",
    "random_structure": "composition and random structures",
}

_HEAD = [
    "formula",
    "space group",
    "decomposition energy, meV/atom",
    "predicted before, meV/atom",
    "to the initial hull, meV/atom",
    "formation energy, eV/atom",
    "competes with (atomic fractions)",
    "novelty",
    "made from",
    "round",
]


def discoveries_section(results: CampaignResults, *, page: Path) -> str:
    """The discoveries with links relative to `page`, the file that is being written."""
    if not results.discoveries:
        text = html.paragraph("No calculated candidate lies on the hull (yet).")
        return html.section("Discoveries", text, anchor="discoveries")
    formulas = _known_formulas(results)
    rows = [_row(d, results.root, page, formulas) for d in results.discoveries]
    table_link = _link(results.root / f"{FOLDER}.csv", page, f"{FOLDER}.csv")
    text = html.tag(
        "p",
        f"Calculated candidates on the hull of the known set and everything calculated: {len(rows):,}. "
        "Decomposition energy: distance to the hull without the crystal itself; negative is the depth of "
        f"stability. {html.text(_uncertainty_text(results))} The formula links to the relaxed crystal "
        "(CIF); space groups are found within 0.1 Å. Novelty, against the known set: a redecoration is a known "
        "crystal with one element exchanged for a chemically similar one; else its prototype (space group and occupied "
        "Wyckoff positions) is known from other chemistry, or new. "
        f"All numbers: {table_link}.",
    )
    table = html.long_table(_HEAD, rows, shown=_SHOWN_DISCOVERIES, numeric=[2, 3, 4, 5, 9], words=[6, 7, 8])
    return html.section("Discoveries", text, table, anchor="discoveries")


def hull_section(results: CampaignResults, chemical_system: str | None) -> str:
    """The hull of the system asked for, or of the deepest discovery."""
    chosen = chemical_system or default_system(results)
    if chosen is None:
        text = html.paragraph("There is no discovery yet; any system can be drawn with opengnome report --system.")
        return html.section("Hull", text, anchor="hull")
    view = hull_view(results, chosen)
    parts = [] if chemical_system else [html.paragraph("The system of the deepest discovery that can be drawn.")]
    if len(view.elements) <= 3:
        parts.append(html.figure(hull_figure(view), _hull_caption(view)))
        parts.append(html.details(f"Phases of {view.name}", _phase_table(view.phases)))
    else:
        parts.append(html.paragraph(f"{len(view.elements)} elements: the stable phases as a table."))
        parts.append(_phase_table(view.stable))
    return html.section(f"Hull of {view.name}", *parts, anchor="hull")


def _hull_caption(view: HullView) -> str:
    n_new = sum(p.discovered for p in view.phases)
    stars = f"{n_new} of them discovered by this campaign (stars)" if n_new else "all of them known before"
    drawn = "Lines join phases that coexist." if len(view.elements) == 3 else "The lowest phase of each composition."
    return f"{len(view.stable)} stable phases, {stars}. {drawn}"


def _phase_table(phases: tuple[Phase, ...]) -> str:
    head = ["formula", "formation energy, eV/atom", "distance to the hull, meV/atom", "from"]
    rows = [
        [
            html.formula(p.reduced_formula),
            fixed(p.formation_energy_per_atom, 3),
            mev(p.distance),
            "this campaign" if p.calculated else "known set",
        ]
        for p in phases
    ]
    return html.long_table(head, rows, shown=_SHOWN_PHASES, numeric=[1, 2])


def _row(discovery: Discovery, root: Path, page: Path, formulas: dict[str, str]) -> list[str]:
    return [
        _link(cif_path(root, discovery.id), page, html.formula(discovery.reduced_formula)),
        html.space_group(discovery.space_group, discovery.space_group_number),
        plus_minus(discovery.decomposition_energy, discovery.decomposition_energy_std),
        plus_minus(discovery.predicted_decomposition_energy, discovery.predicted_std),
        mev(discovery.distance_to_initial_hull),
        fixed(discovery.formation_energy_per_atom, 3),
        html.formula(discovery.decomposition_products),
        _novelty(discovery.novelty),
        _provenance(discovery, formulas),
        html.text(discovery.round),
    ]


def _novelty(novelty: Novelty) -> str:
    """The rung of the ladder and what else is new."""
    rung = html.text(novelty.rung.value)
    if novelty.nearest:
        rung = f"{rung} of {html.formula(novelty.nearest)}"
    if not novelty.new_chemical_system:
        return rung
    return f"{rung}<br><small>new chemical system</small>"


def _provenance(discovery: Discovery, formulas: dict[str, str]) -> str:
    parents = ", ".join(
        f"{html.formula(formulas[parent])} <code>{html.text(parent)}</code>"
        if parent in formulas
        else f"<code>{html.text(parent)}</code>"
        for parent in discovery.parent_ids
    )
    method = _METHODS.get(discovery.method, discovery.method.replace("_", " "))
    if not discovery.parent_ids:
        return f"<small>{html.text(method)}</small>"
    return f"{parents}<br><small>{html.replacement(discovery.replaced)}, {html.text(method)}</small>"


def _known_formulas(results: CampaignResults) -> dict[str, str]:
    """Reduced formula of every parent there can be, by id."""
    table = results.knowledge.known.table
    candidates = {i: choice.reduced_formula for i, choice in results.choices.items()}
    return dict(zip(table.ids, table.reduced_formulas, strict=True)) | candidates


def _uncertainty_text(results: CampaignResults) -> str:
    std = results.discoveries[0].decomposition_energy_std
    if std > 0:
        return (
            f"Its uncertainty is the spread of the aligned oracle on known crystals, {mev(std)} meV/atom (one sigma)."
        )
    return (
        "Oracle and known set share one level, so no statistical uncertainty is given: that of the level itself "
        "against experiment is not included."
    )


def _link(target: Path, page: Path, label: str) -> str:
    relative = Path(os.path.relpath(target, page.parent)).as_posix()
    return html.tag("a", label, href=quote(relative))
