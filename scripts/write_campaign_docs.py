"""Write the page of a campaign in `docs/`: alignment, table of rounds, depth of the hits, discoveries.

    python scripts/write_campaign_docs.py runs/materials_project docs/real_campaign.md \
        --settings examples/materials_project.toml --flags experimental_flags.parquet --gnome gnome_pbe.parquet

`--flags` (reduced_formula, experimental) and `--gnome` (reduced_formula) are tables of compounds outside the known set;
with them the page says which discoveries others have found: computed, made in a laboratory, or by GNoME. `--structures`
is a table of crystals (the Materials Project's): discoveries are matched with those of their composition and named, and
the hit rate is told apart for formulas that the shipped networks were trained on, where the campaign began with them.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from campaign_groups import by_anion, by_confidence, calculated_distance, known_on_the_hull

from opengnome.campaign import CampaignResults, Discovery
from opengnome.campaign.events import Choice
from opengnome.campaign.metrics import DEEP
from opengnome.campaign.selection import ARMS, MODEL
from opengnome.campaign.work import volume_scales
from opengnome.crystals import CrystalTable
from opengnome.crystals.io import read_table
from opengnome.crystals.matching import is_same_structure
from opengnome.datasets import is_train
from opengnome.datasets.known import EMBEDDED
from opengnome.hull import STABILITY_TOLERANCE
from opengnome.models import SHIPPED
from opengnome.report import rounds_markdown
from opengnome.report.figures import save_hit_rates
from opengnome.report.numbers import Rate, mev
from opengnome.report.rounds import ARM_NAMES, summarise

ELSEWHERE = ("made in a laboratory", "computed by the Materials Project", "found by GNoME", "in none of these")
N_LISTED = 40
FEWEST_POOLED = 4
"""Rounds that are worth pooling."""


def main() -> None:
    """Read the campaign, write the page."""
    arguments = _arguments()
    results = CampaignResults(arguments.campaign)
    tables = _tables(arguments)
    elsewhere = {d.id: _elsewhere(d.reduced_formula, *tables) for d in results.discoveries}
    structures = None if arguments.structures is None else read_table(arguments.structures)
    matches = {} if structures is None else _matches(results.discoveries, structures)
    listing = Listing(elsewhere, _other_functional(arguments.other_functional), matches, everything=arguments.all)
    parts = [
        "<!-- written by scripts/write_campaign_docs.py; do not edit -->",
        f"# {results.settings.name}",
        introduction(results, arguments),
        "## Oracle against the known set",
        alignment(results),
        "## Rounds",
        rounds_markdown(arguments.campaign),
        figure(results, arguments.page),
        pooled(results),
        trained_on(results, structures),
        ends_of_the_scan(results),
        by_confidence(results),
        by_anion(results),
        known_on_the_hull(results),
        "## How deep the hits lie",
        depth(results),
        "## Discoveries",
        discoveries(results, listing),
        arguments.notes.read_text() if arguments.notes else "",
    ]
    arguments.page.write_text("\n\n".join(part for part in parts if part).rstrip() + "\n", encoding="utf-8")


def introduction(results: CampaignResults, arguments: argparse.Namespace) -> str:
    """What was run, and with which command."""
    known, started, settings = results.knowledge.known, results.state.started, arguments.settings
    versions = {} if started is None else started.versions
    source = "" if known.source == EMBEDDED else f" --set known.source=path/to/{known.source}"
    command = arguments.command or f"opengnome discover runs/{settings.stem} --settings {settings}{source}"
    return (
        f"Known set: {len(known.table):,} crystals of {len(known.elements)} elements from `{known.source}` "
        f"({known.level}); their hull is the initial hull. Oracle: {oracle(results, versions)}, relaxing cell and "
        f"positions. Seed {results.settings.seed}.\n\n"
        f"```console\n$ {command}\n"
        f"$ python scripts/write_campaign_docs.py {arguments.campaign_shown or f'runs/{settings.stem}'} "
        f"docs/{arguments.page.name} ...\n```\n\n"
        '"New" means: a composition that is not in this table. A hit is a calculated energy at or below the hull (0.05 '
        "meV/atom tolerance); rates divide by all calculations of the arm, failed ones included. The arms share one "
        "hull and one history."
    )


def figure(results: CampaignResults, page: Path) -> str:
    """Hit rates by round, drawn beside the page."""
    summaries = summarise(results.state)
    if not any(summary.closed for summary in summaries):
        return ""
    path = page.parent / "results" / f"{page.stem}.svg"
    path.parent.mkdir(exist_ok=True)
    save_hit_rates(summaries, path)
    return f"![hit rates by round with 95 % intervals](results/{path.name})"


def oracle(results: CampaignResults, versions: Mapping[str, str]) -> str:
    """What computed: CHGNet and its version, or the code and level of the calculations."""
    if results.settings.oracle.name == "chgnet":
        return f"CHGNet {versions.get('chgnet', '')}".rstrip()
    done = [results.knowledge.calculation(c).oracle for c in results.calculations[:1]]
    described = [f"{identity.code} {identity.version} ({identity.level})" for identity in done]
    return described[0] if described else results.settings.oracle.name


def alignment(results: CampaignResults) -> str:
    """How the oracle's formation energies compare with the table's, before and after the fit."""
    aligned = results.state.alignment
    if aligned is None or not aligned.shifts:
        return "The oracle made the known set's energies; nothing is shifted."
    m = aligned.metrics
    shifts = ", ".join(f"{symbol} {1e3 * value:+.0f}" for symbol, value in aligned.shifts.items())
    return (
        f"The oracle relaxed {m['n_crystals']:.0f} known compounds drawn by seed ({m['n_failed']:.0f} relaxations "
        "failed) and one crystal per element. Its formation energies minus the table's:\n\n"
        "| | meV/atom |\n|---|---:|\n"
        f"| offset (mean) | {1e3 * m['offset_before']:+.0f} |\n"
        f"| MAE | {1e3 * m['mae_before']:.0f} |\n"
        f"| MAE after one shift per element, five-fold cross-validated | {1e3 * m['mae_after']:.0f} |\n"
        f"| median error after the shift | {1e3 * m['median_error_after']:.0f} |\n\n"
        f"The shifts (meV per atom of the element): {shifts}. Each entry keeps its uncorrected energy, "
        "the shift and the name of the scheme."
    )


def pooled(results: CampaignResults) -> str:
    """The first and the second half of the rounds together: single rounds are too few to tell a trend."""
    closed = [summary for summary in summarise(results.state) if summary.closed]
    if len(closed) < FEWEST_POOLED:
        return ""
    middle = len(closed) // 2
    halves = (closed[:middle], closed[middle:])
    names = [f"rounds {half[0].number} to {half[-1].number}" for half in halves]
    lines = [f"| hits against the current hull | {' | '.join(names)} |", "|---|---:|---:|"]
    for arm in ARMS:
        rates = [[summary.arms[arm].current for summary in half if arm in summary.arms] for half in halves]
        if any(rates):
            sums = [Rate(sum(rate.hits for rate in half), sum(rate.total for rate in half)) for half in rates]
            lines.append(f"| {ARM_NAMES[arm]} | {' | '.join(str(rate) for rate in sums)} |")
    return "\n".join(lines)


def trained_on(results: CampaignResults, structures: CrystalTable | None) -> str:
    """Hits among formulas that the shipped networks were trained on, and among others."""
    if structures is None or results.settings.ensemble.initial != SHIPPED:
        return ""
    trained = {formula for formula in structures.reduced_formulas if is_train(formula)}
    choices = [c for current in results.state.rounds.values() if current.closed is not None for c in current.choices]
    lines = ["| hits against the initial hull | trained on | not trained on |", "|---|---:|---:|"]
    for arm in ARMS:
        own = [choice for choice in choices if arm in choice.arms]
        if not own:
            continue
        cells = []
        for seen in (True, False):
            depths = [
                calculated_distance(results, choice) for choice in own if (choice.reduced_formula in trained) == seen
            ]
            cells.append(str(Rate(sum(d is not None and d <= STABILITY_TOLERANCE for d in depths), len(depths))))
        lines.append(f"| {ARM_NAMES[arm]} | {' | '.join(cells)} |")
    text = (
        "The networks that the campaign fine-tunes were trained on the Materials Project. Formulas of this campaign "
        "are new to its known set, but the networks may have been trained on their energies there; told apart:"
    )
    return text + "\n\n" + "\n".join(lines)


def ends_of_the_scan(results: CampaignResults) -> str:
    """The model's choice by where the scan of volumes has its minimum; empty where none is at an end."""
    scales = volume_scales(results.settings.screening)
    if len(scales) < 3:
        return ""
    rows: list[str] = []
    chosen = 0
    for number, current in sorted(results.state.rounds.items()):
        if current.selection is None or current.closed is None:
            continue
        model = [choice for choice in current.selection.choices if MODEL in choice.arms]
        at_an_end = [c for c in model if min(abs(c.volume_scale - scales[0]), abs(c.volume_scale - scales[-1])) < 1e-6]
        inside = [choice for choice in model if choice not in at_an_end]
        rows.append(f"| {number} | {_hits_and_bias(results, inside)} | {_hits_and_bias(results, at_an_end)} |")
        chosen += len(at_an_end)
    if not chosen:
        return ""
    head = [
        "| round | minimum inside: hits | bias, meV/atom | at an end: hits | bias, meV/atom |",
        "|---:|---:|---:|---:|---:|",
    ]
    text = "The model's choice (hits against the initial hull) by where the scan of volumes has its minimum:"
    return "\n".join([text, "", *head, *rows])


def _hits_and_bias(results: CampaignResults, choices: Sequence[Choice]) -> str:
    depths = [calculated_distance(results, c) for c in choices]
    errors = [
        c.predicted_formation_energy_per_atom - c.initial_hull_energy_per_atom - depth
        for c, depth in zip(choices, depths, strict=True)
        if depth is not None
    ]
    rate = Rate(sum(d is not None and d <= STABILITY_TOLERANCE for d in depths), len(depths))
    return f"{rate} | {mev(float(np.mean(errors))) if errors else '-'}"


def depth(results: CampaignResults) -> str:
    """Hits far below the known hull apart: a known phase is probably missing from the table there."""
    rows = []
    for number, current in sorted(results.state.rounds.items()):
        if current.selection is None or current.closed is None:
            continue
        searched = current.compositions.choices if current.compositions is not None else ()
        choices = (*current.selection.choices, *searched)
        for arm in ARMS:
            if not any(arm in choice.arms for choice in choices):
                continue
            depths = [calculated_distance(results, choice) for choice in choices if arm in choice.arms]
            rows.append(f"| {number} | {ARM_NAMES[arm]} | {_depth_cells(depths)} |")
    head = (
        "| round | arm | calculated | hits | of these deeper than 200 meV/atom | hit rate without the deep ones |\n"
        "|---:|---|---:|---:|---:|---:|"
    )
    n_known = len(results.knowledge.known.table)
    text = (
        f"A crystal more than {1e3 * DEEP:.0f} meV/atom below the hull of the {n_known:,} known crystals usually marks "
        "a hole in the table, a common compound that it lacks, and everything near the hole looks stable. Such "
        "candidates are counted apart; the last column leaves them out of hits and calculations."
    )
    return f"{text}\n\n{head}\n" + "\n".join(rows)


def _depth_cells(depths: Sequence[float | None]) -> str:
    hits = sum(d is not None and d <= STABILITY_TOLERANCE for d in depths)
    deep = sum(d is not None and d < -DEEP for d in depths)
    rest = len(depths) - deep
    rate = f"{100 * (hits - deep) / rest:.0f} %" if rest else "-"
    return f"{len(depths)} | {hits} | {deep} | {rate}"


@dataclass(frozen=True)
class Listing:
    """What the list of discoveries says beside the campaign's own results; by id of the discovery."""

    elsewhere: Mapping[str, str]
    """One of `ELSEWHERE`."""
    verdicts: Mapping[str, str]
    """What another functional says; empty where none was asked."""
    matches: Mapping[str, str]
    """Which crystal of the table of structures it is; empty without one."""
    everything: bool
    """All discoveries; else the first that are no holes of the known set."""


def discoveries(results: CampaignResults, listing: Listing) -> str:
    """Counts by who else has found them, and a table of them."""
    found = results.discoveries
    shallow = [d for d in found if d.distance_to_initial_hull >= -DEEP]
    counts = {name: sum(where == name for where in listing.elsewhere.values()) for name in ELSEWHERE}
    listed = found if listing.everything else shallow[:N_LISTED]
    chosen = "All" if listing.everything else f"The first {len(listed)} of the others"
    with_std = any(d.decomposition_energy_std > 0 for d in found)
    uncertainty = "; ± is the spread of aligned formation energies on known compounds, not DFT's own error"
    more = {"structure": listing.matches, "other functional": listing.verdicts}
    extra = [name for name, told in more.items() if told]
    head = [
        "formula",
        "space group",
        "decomposition energy",
        "predicted",
        "made from",
        "how",
        "known elsewhere",
        *extra,
    ]
    lines = [
        f"{len(found)} calculated crystals lie on the hull of everything known at the end; {len(found) - len(shallow)} "
        "of them are deeper than 200 meV/atom below the initial hull. Who else has these compositions:",
        "| | discoveries |\n|---|---:|\n" + "\n".join(f"| {name} | {n} |" for name, n in counts.items()),
        f"{chosen} by decomposition energy (meV/atom, hull without the entry{uncertainty if with_std else ''}):",
        "\n".join(
            [
                f"| {' | '.join(head)} |",
                f"|---|---|---:|---:|{'---|' * (len(head) - 4)}",
                *(_discovery_row(d, listing) for d in listed),
            ]
        ),
    ]
    return "\n\n".join(lines)


def _discovery_row(d: Discovery, listing: Listing) -> str:
    std = f" ± {1e3 * d.decomposition_energy_std:.0f}" if d.decomposition_energy_std > 0 else ""
    cells = [
        d.reduced_formula,
        d.space_group,
        f"{1e3 * d.decomposition_energy:.0f}{std}",
        f"{1e3 * d.predicted_decomposition_energy:.0f} ± {1e3 * d.predicted_std:.0f}",
        ", ".join(d.parent_ids),
        d.replaced.replace("|", "/"),
        listing.elsewhere[d.id],
        *([listing.matches.get(d.id, "")] if listing.matches else []),
        *([listing.verdicts.get(d.id, "")] if listing.verdicts else []),
    ]
    return f"| {' | '.join(cells)} |"


def _matches(found: Sequence[Discovery], structures: CrystalTable) -> dict[str, str]:
    """Of each discovery whose composition is in a table: the crystal it is, or that it is none of them."""
    rows: dict[str, list[int]] = {}
    for row, formula in enumerate(structures.reduced_formulas):
        rows.setdefault(formula, []).append(row)
    told = {}
    for discovery in found:
        own = rows.get(discovery.reduced_formula, [])
        same = [structures.ids[row] for row in own if is_same_structure(discovery.crystal, structures[row])]
        if same:
            told[discovery.id] = ", ".join(same)
        elif own:
            told[discovery.id] = f"other than {', '.join(structures.ids[row] for row in own[:3])}"
        else:
            told[discovery.id] = "composition not there"
    return told


def _other_functional(path: Path | None) -> dict[str, str]:
    """Decomposition energies of `scripts/r2scan_check.py judge` in meV/atom, by id."""
    if path is None:
        return {}
    return {
        row["id"]: f"{1e3 * row['decomposition_energy']:.0f}" for row in json.loads(path.read_text())["discoveries"]
    }


def _elsewhere(formula: str, made: set[str], computed: set[str], gnome: set[str]) -> str:
    if formula in made:
        return ELSEWHERE[0]
    if formula in computed:
        return ELSEWHERE[1]
    return ELSEWHERE[2] if formula in gnome else ELSEWHERE[3]


def _tables(arguments: argparse.Namespace) -> tuple[set[str], set[str], set[str]]:
    made: set[str] = set()
    computed: set[str] = set()
    if arguments.flags:
        flags = pq.read_table(arguments.flags, columns=["reduced_formula", "experimental"]).to_pydict()
        computed = set(flags["reduced_formula"])
        made = {f for f, yes in zip(flags["reduced_formula"], flags["experimental"], strict=True) if yes}
    gnome = (
        set(pq.read_table(arguments.gnome, columns=["reduced_formula"])[0].to_pylist()) if arguments.gnome else set()
    )
    return made, computed, gnome


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--settings", type=Path, required=True, help="the settings file the campaign was started with")
    parser.add_argument("--command", help="shown as what was run; by default discover with the settings file")
    parser.add_argument("--campaign-shown", help="how the page calls the campaign's folder")
    parser.add_argument("--flags", type=Path)
    parser.add_argument("--gnome", type=Path)
    parser.add_argument("--structures", type=Path, help="table of crystals to match discoveries with")
    parser.add_argument("--all", action="store_true", help="list all discoveries")
    parser.add_argument("--other-functional", type=Path, help="JSON of scripts/r2scan_check.py judge")
    parser.add_argument("--notes", type=Path, help="Markdown put at the end of the page")
    return parser.parse_args()


if __name__ == "__main__":
    main()
