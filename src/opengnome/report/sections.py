"""Sections of the page about the loop: rounds, rejections, models, alignment, failures."""

from collections.abc import Iterable, Sequence

from opengnome.campaign import CampaignResults
from opengnome.campaign.conversion import UNALIGNED, has_energy
from opengnome.campaign.events import Calculated
from opengnome.campaign.selection import ARMS
from opengnome.campaign.strained import is_strained
from opengnome.models.calibration import LEVELS
from opengnome.report import html
from opengnome.report.evidence import Comparison, ModelCard, calculated_coverage, comparisons, model_cards
from opengnome.report.figures import calibration_figure, hit_rate_figure, parity_figure, shifts_figure
from opengnome.report.numbers import MISSING, count, mev, percent
from opengnome.report.rounds import (
    ARM_NAMES,
    RoundSummary,
    Row,
    failures_by_status,
    rejection_rows,
    round_rows,
)

_SHOWN_FAILURES = 12
_SHOWN_PARITY_ROUNDS = 3


def rounds_section(results: CampaignResults, summaries: Sequence[RoundSummary]) -> str:
    """The table of rounds and the hit rates."""
    if not summaries:
        return html.section("Rounds", html.paragraph("No round has begun yet."), anchor="rounds")
    parts = [_grouped_table(round_rows(summaries, window=results.settings.screening.window), summaries)]
    if not any(s.closed for s in summaries):
        parts.append(html.paragraph("No round is closed yet, so there are no hit rates."))
        return html.section("Rounds", *parts, anchor="rounds")
    caption = (
        "Share of calculated candidates on or below the hull, failed calculations counted as misses, with 95 % "
        "intervals (Wilson). Initial hull: that of the known set. Current hull: that of everything known at the "
        "end of the round, so a candidate counts only if no other discovery is lower."
    )
    return html.section("Rounds", *parts, html.figure(hit_rate_figure(summaries), caption), anchor="rounds")


def rejections_section(results: CampaignResults, summaries: Sequence[RoundSummary]) -> str:
    """Candidates that were dropped before any calculation, by reason."""
    screened = [s for s in summaries if s.counts]
    if not screened:
        return html.section("Rejected candidates", html.paragraph("Nothing is screened yet."), anchor="rejected")
    text = html.paragraph("Each dropped candidate is counted once, at the first filter that it did not pass.")
    rows = rejection_rows(screened, window=results.settings.screening.window)
    return html.section("Rejected candidates", text, _grouped_table(rows, screened), anchor="rejected")


def models_section(results: CampaignResults) -> str:
    """Parity of predicted and calculated energies, and whether the error bars mean what they say."""
    cards, compared = model_cards(results), comparisons(results)
    if not cards:
        return html.section("Models", html.paragraph("No ensemble is trained yet."), anchor="models")
    calculated = {arm: rates for arm in ARMS if (rates := calculated_coverage(compared, cards, arm=arm))}
    parts = ["<h3>Errors and calibration</h3>", _cards_table(cards)]
    warnings = dict.fromkeys(warning for card in cards for warning in card.warnings)
    parts += [html.paragraph(f"Note: {warning}.") for warning in warnings]
    if calculated or any(card.coverage for card in cards):
        caption = (
            "How often the true energy lies inside the predicted interval. Below the line the model is too sure "
            "of itself. Held-out crystals have compositions that no network was trained on; calculated candidates "
            "are harder: they are unrelaxed when predicted, and the model's choice prefers lucky errors."
        )
        parts.append(html.figure(calibration_figure(cards, calculated), caption))
    if calculated:
        head = ["interval", *(f"calculated: {ARM_NAMES[arm]}" for arm in calculated)]
        rows = [[percent(level), *(html.text(calculated[a][level]) for a in calculated)] for level in LEVELS]
        parts.append(html.table(head, rows))
    return html.section("Models", *parts, *_parity(compared), anchor="models")


def alignment_section(results: CampaignResults) -> str:
    """How the oracle's energies were brought to the level of the known set; empty where they need not be."""
    alignment = results.state.alignment
    if alignment is None or alignment.scheme == UNALIGNED:
        return ""
    metrics = alignment.metrics
    text = html.paragraph(
        "The known set's energies were not made by this oracle. The oracle therefore relaxed one crystal per "
        "element and a random sample of known compounds first, and one shift per element was fitted to the "
        "difference of formation energies. The shifts are part of every energy on this page.",
        "What remains after the shift is the uncertainty given for decomposition energies.",
    )
    rows = [
        ["known compounds compared", count(metrics.get("n_crystals"))],
        ["reference calculations that failed", count(metrics.get("n_failed"))],
        ["mean offset before, oracle minus table, meV/atom", mev(metrics.get("offset_before"))],
        ["MAE before, meV/atom", mev(metrics.get("mae_before"))],
        ["MAE after (five-fold cross-validation), meV/atom", mev(metrics.get("mae_after"))],
        ["median error after, meV/atom", mev(metrics.get("median_error_after"))],
        ["robust standard deviation after, meV/atom", mev(metrics.get("std_after"))],
    ]
    caption = "Fitted shift per element: added to the oracle's formation energy, weighted by atomic fraction."
    shifts = html.figure(shifts_figure(alignment.shifts), caption) if alignment.shifts else ""
    return html.section(
        "Alignment of the oracle", text, html.table(["", ""], rows, numeric=[1]), shifts, anchor="alignment"
    )


def _is_single_point(calculated: Calculated) -> bool:
    """A strained crystal is not relaxed: its energy is what was asked for."""
    return is_strained(calculated.crystal_id) and calculated.energy_per_atom is not None


def failures_section(results: CampaignResults) -> str:
    """Calculations that gave no energy, with the reason of each."""
    references = results.state.references.values()
    failed = [c for c in (*references, *results.calculations) if not has_energy(c) and not _is_single_point(c)]
    total = len(references) + len(results.calculations)
    if not failed:
        words = f"None of {total:,} calculations failed." if total else "Nothing is calculated yet."
        return html.section("Failed calculations", html.paragraph(words), anchor="failures")
    by_status = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in failures_by_status(failed).items())
    text = html.paragraph(
        f"{len(failed):,} of {total:,} calculations gave no usable energy ({by_status}).",
        "They count as misses in the hit rates and enter neither the hull nor the training set as relaxed crystals.",
    )
    head = ["id", "formula", "status", "reason", "round"]
    rows = [_failure_row(c) for c in failed]
    return html.section(
        "Failed calculations",
        text,
        html.long_table(head, rows, shown=_SHOWN_FAILURES, numeric=[4], words=[3]),
        anchor="failures",
    )


def _failure_row(calculated: Calculated) -> list[str]:
    return [
        html.tag("code", html.text(calculated.crystal_id)),
        html.formula(calculated.reduced_formula),
        html.text(calculated.status.replace("_", " ")),
        html.text(calculated.reason),
        html.text(calculated.round or "reference"),
    ]


def _grouped_table(rows: Iterable[Row], summaries: Sequence[RoundSummary]) -> str:
    """Quantities down, rounds across; a line above each group."""
    head = html.tag("th", "") + "".join(
        html.tag("th", f"round {s.number}{'' if s.closed else ' <small>(open)</small>'}") for s in summaries
    )
    body, group = [], ""
    for row in rows:
        if row.group != group:
            group = row.group
            body.append(f'<tr class="group"><td colspan="{len(summaries) + 1}">{html.text(group)}</td></tr>')
        cells = "".join(html.tag("td", html.text(cell)) for cell in row.cells)
        body.append(html.tag("tr", html.tag("td", html.text(row.label)) + cells))
    inner = html.tag("thead", html.tag("tr", head)) + html.tag("tbody", "".join(body))
    return html.tag("div", html.tag("table", inner, class_="plain rounds"), class_="scroll")


def _cards_table(cards: Sequence[ModelCard]) -> str:
    levels = sorted({level for card in cards for level in card.coverage})
    head = ["round", "judged on", "crystals", "MAE, meV/atom", "median error, meV/atom"]
    head += [f"inside {percent(level)} interval" for level in levels]
    rows = [
        [
            html.text(card.round),
            html.text(card.judged_on),
            count(card.n),
            mev(card.mae),
            mev(card.median_error),
            *(percent(card.coverage.get(level)) for level in levels),
        ]
        for card in cards
    ]
    return html.table(head, rows, numeric=range(2, len(head)), words=[1])


def _parity(compared: Sequence[Comparison]) -> list[str]:
    if not compared:
        return [html.paragraph("No calculation has converged yet, so predictions cannot be compared.")]
    caption = (
        "Predicted before, calculated after relaxation, for every converged calculation; bars are one calibrated "
        "standard deviation. The distance to the hull is the decomposition energy against the hull at the start "
        "of the round: left of zero is a hit. Axes span the model's choice and the filtered pool; what lies outside is "
        "counted in the corner."
    )
    figures = [_parity_of_round(compared, number) for number in sorted({c.round for c in compared}, reverse=True)]
    parts = ["<h3>Predicted against calculated</h3>", html.paragraph(caption), *figures[:_SHOWN_PARITY_ROUNDS]]
    if len(figures) > _SHOWN_PARITY_ROUNDS:
        parts.append(html.details("Earlier rounds", "".join(figures[_SHOWN_PARITY_ROUNDS:])))
    return parts


def _parity_of_round(compared: Sequence[Comparison], number: int) -> str:
    own = [c for c in compared if c.round == number]
    mae = sum(abs(c.error) for c in own) / len(own) if own else None
    caption = f"Round {number}: {len(own):,} calculated, MAE {mev(mae) if own else MISSING} meV/atom over all arms."
    return html.figure(parity_figure(own, number=number), caption)
