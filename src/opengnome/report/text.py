"""The campaign in plain text: a status for the terminal, a table of rounds in Markdown."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from opengnome.campaign import CampaignResults, Discovery, read_settings, read_state
from opengnome.campaign.layout import Layout
from opengnome.campaign.state import CampaignState
from opengnome.report.numbers import MISSING, count, listed, mev, percent, plus_minus
from opengnome.report.rounds import RoundSummary, rejection_rows, round_rows, summarise
from opengnome.report.stage import stage

_BEST = 10
_HEAD = ("round", "generated", "in window", "calculated", "failed", "hits", "hit rate", "on hull now", "MAE meV")


def status_lines(root: Path) -> str:
    """How far a campaign is and what it has found; works while it runs.

    Raises `CampaignError` when there is no campaign in `root`.
    """
    settings, state = read_settings(root), read_state(root)
    summaries = summarise(state)
    lines = [f"{settings.name}  ({root})", f"now: {stage(state, settings)}"]
    lines += _last_message(Layout(root).progress)
    lines += ["", *(_columns(_HEAD, [_round_cells(s) for s in summaries]) if summaries else ["no round has begun"])]
    if summaries and not any(s.closed for s in summaries):
        lines.append("no round is closed yet; hit rates come with the first")
    failures = sum((Counter(s.failures) for s in summaries), Counter())
    lines += ["", f"failed calculations: {listed(dict(failures)) or 'none'}"]
    return "\n".join([*lines, *_discovery_lines(root, state)])


def rounds_markdown(root: Path) -> str:
    """The table of rounds as Markdown: quantities down, rounds across.

    Raises `CampaignError` when there is no campaign in `root`.
    """
    settings, state = read_settings(root), read_state(root)
    summaries = summarise(state)
    if not summaries:
        return "No round has begun yet.\n"
    window = settings.screening.window
    rows = round_rows(summaries, window=window) + [
        row._replace(group="Rejected", label=f"{row.label} ({row.group.lower()})")
        for row in rejection_rows(summaries, window=window)
    ]
    lines = [_markdown_row(["", *(f"round {s.number}" for s in summaries)])]
    lines.append("|---|" + "---:|" * len(summaries))
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append(_markdown_row([f"**{group}**", *("" for _ in summaries)]))
        lines.append(_markdown_row([row.label, *row.cells]))
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _round_cells(summary: RoundSummary) -> list[str]:
    model = summary.arms.get("model")
    generated = summary.counts.get("generated", summary.counts.get("kept"))
    chosen = "" if summary.closed or summary.n_chosen is None else f"/{summary.n_chosen}"
    return [
        str(summary.number),
        count(generated),
        count(summary.counts.get("within_window")),
        f"{summary.n_calculated}{chosen}",
        str(summary.n_failed),
        MISSING if model is None else f"{model.initial.hits}/{model.initial.total}",
        MISSING if model is None else percent(model.initial.value),
        MISSING if model is None else str(model.current.hits),
        MISSING if model is None else mev(model.metrics.get("mae")),
    ]


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells set flush right under their heads."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in (head, *rows)]


def _last_message(progress: Path) -> list[str]:
    """The last line of the progress file and its age; nothing when there is none."""
    if not progress.is_file():
        return []
    lines = progress.read_text().splitlines()
    for line in reversed(lines[-4:]):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line that is being written just now
        age = max(0.0, time.time() - record["time"])
        return [f"last message, {_age(age)} ago: {record['message']}"]
    return []


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _discovery_lines(root: Path, state: CampaignState) -> list[str]:
    if not any(current.calculations for current in state.rounds.values()):
        return ["discoveries: none yet"]
    found = CampaignResults(root).discoveries
    lines = [f"discoveries: {len(found)}"]
    if not found:
        return lines
    head = ("formula", "space group", "meV/atom below the rest", "to initial hull", "round", "id")
    lines += ["", *_columns(head, [_discovery_cells(d) for d in found[:_BEST]])]
    return lines + ([f"... and {len(found) - _BEST} more"] if len(found) > _BEST else [])


def _discovery_cells(discovery: Discovery) -> list[str]:
    return [
        discovery.reduced_formula,
        discovery.space_group,
        plus_minus(-discovery.decomposition_energy, discovery.decomposition_energy_std),
        mev(discovery.distance_to_initial_hull),
        str(discovery.round),
        discovery.id,
    ]
