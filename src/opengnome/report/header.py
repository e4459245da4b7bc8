"""The top of the page: what was searched, with what, and what the words mean."""

from opengnome.campaign import CampaignResults
from opengnome.crystals.elements import SYMBOLS
from opengnome.datasets import EMBEDDED
from opengnome.oracles import OracleIdentity
from opengnome.report import html
from opengnome.report.numbers import MISSING, Rate, percent
from opengnome.report.rounds import RoundSummary
from opengnome.report.stage import is_finished, stage
from opengnome.settings import to_toml


def header(results: CampaignResults, summaries: list[RoundSummary]) -> str:
    """Title, state, key numbers, and everything needed to repeat the campaign."""
    closed = sum(s.closed for s in summaries)
    state = f"{closed} of {results.settings.rounds.n_rounds} rounds closed"
    if not is_finished(results.state, results.settings):
        state += f"; unfinished: {stage(results.state, results.settings)}"
    title = html.tag("h1", html.text(results.settings.name))
    lead = html.tag("p", html.text(f"A search for new stable crystals by OpenGNoME. {state}."), class_="lead")
    return html.tag("header", title + lead) + _tiles(results, summaries)


def setting_section(results: CampaignResults) -> str:
    """What was searched, with which oracle and known set; folded away, all that is needed to repeat it."""
    settings = html.tag("pre", html.text(to_toml(results.settings)))
    details = html.details("Seed, versions, digests, all settings", _listed(_record(results)) + settings)
    return html.section("What was searched", _listed(_facts(results)), meaning(results), details, anchor="setting")


def meaning(results: CampaignResults) -> str:
    """What "new", "stable" and the energies mean on this page."""
    known = results.knowledge.known
    n_compositions = len(set(known.table.reduced_formulas))
    new = html.paragraph(
        f"“New” means: a composition that is not among the {n_compositions:,} of the known set "
        f"({len(known.table):,} crystals). It was not compared with any other database.",
        "“Stable” means: on or below the convex hull of the known set and of everything this campaign calculated.",
    )
    energies = html.paragraph(
        f"All energies are of the level “{known.level}”, at zero temperature and pressure. Formation energies are "
        "relative to the elements, per atom. A crystal on such a hull may still be unstable towards vibrations, at "
        "temperature, or against phases that nobody put into the known set.",
    )
    if known.source != EMBEDDED:
        return new + energies
    small = html.paragraph(
        f"The known set of this campaign is the small one that comes with the package: {len(known.table):,} "
        "crystals. Hit rates are against that set. Most of what is found here is known to chemistry, and a hull "
        "of so few compounds is easily beaten; for discoveries, search against a large table of known crystals.",
    )
    return new + energies + html.tag("div", small, class_="note")


def _tiles(results: CampaignResults, summaries: list[RoundSummary]) -> str:
    calculated = len(results.calculations)
    failed = sum(s.n_failed for s in summaries)
    initial = [arm.initial for s in summaries for name, arm in s.arms.items() if name == "model"]
    rate = Rate(sum(r.hits for r in initial), sum(r.total for r in initial))
    hit_rate = percent(rate.value) if rate.total else MISSING
    tiles = (
        (f"{len(results.discoveries):,}", "discoveries on the current hull"),
        (hit_rate, "of the model's choices hit, against the initial hull"),
        (f"{calculated:,}", f"candidates calculated, {failed:,} failed"),
        (f"{sum(s.counts.get('proposed', 0) for s in summaries):,}", "candidates proposed"),
    )
    return html.tag("div", "".join(_tile(*tile) for tile in tiles), class_="tiles")


def _tile(number: str, label: str) -> str:
    return html.tag("div", html.tag("b", html.text(number)) + html.tag("span", html.text(label)), class_="tile")


def _listed(facts: dict[str, str]) -> str:
    return html.tag(
        "dl", "".join(html.tag("dt", html.text(k)) + html.tag("dd", html.text(v)) for k, v in facts.items())
    )


def _facts(results: CampaignResults) -> dict[str, str]:
    known = results.knowledge.known
    size = f"{len(known.table):,} crystals, {len(known.elements)} elements"
    return {
        "candidates": _searched(results),
        "elements": _elements(results),
        "oracle": _oracle(results),
        "known set": f"{known.source}: {size}, level {known.level}",
    }


def _record(results: CampaignResults) -> dict[str, str]:
    started, initial = results.state.started, results.knowledge.initial_hull
    versions = {} if started is None else started.versions
    return {
        "seed": str(results.settings.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "initial hull": f"{len(initial):,} entries, digest {initial.digest}",
        "current hull": f"{len(results.hull):,} entries, digest {results.hull.digest}",
        "known-set digest": results.knowledge.known.digest,
        "settings digest": results.settings.digest,
    }


def _searched(results: CampaignResults) -> str:
    settings = results.settings
    methods = " and ".join(method.replace("_", " ") for method in settings.generation.methods)
    return (
        f"made by {methods} from crystals of up to {settings.parents.max_atoms} atoms at most "
        f"{1e3 * settings.parents.max_energy_above_hull:.0f} meV/atom above the hull"
    )


def _elements(results: CampaignResults) -> str:
    """Elements candidates may contain: those allowed that also have a reference in the known set."""
    mask = results.settings.generation.element_mask()
    symbols = [SYMBOLS[z] for z in results.knowledge.known.elements if mask[z]]
    return f"{len(symbols)}: {', '.join(symbols)}"


def _oracle(results: CampaignResults) -> str:
    """Who calculated, as written in the calculations themselves."""
    identity = _identity(results)
    relaxation = results.settings.oracle.relaxation
    limits = f"relaxed to {relaxation.fmax} eV/Å in at most {relaxation.max_steps} steps"
    if identity is None:
        return f"{results.settings.oracle.name}, {limits}"
    return f"{identity.name} ({identity.code} {identity.version}), level {identity.level}, {limits}"


def _identity(results: CampaignResults) -> OracleIdentity | None:
    """The identity in the first calculation; all of a campaign share one."""
    events = [*results.calculations, *results.state.references.values()]
    return results.knowledge.calculation(events[0]).oracle if events else None
