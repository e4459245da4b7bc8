"""The report: one HTML file that needs nothing but itself, and the CIFs that it links to."""

from pathlib import Path

from opengnome import __version__
from opengnome.campaign import CampaignResults
from opengnome.crystals.replacement import replace_file
from opengnome.report import html
from opengnome.report.discoveries import discoveries_section, hull_section
from opengnome.report.files import write_discoveries
from opengnome.report.header import header, setting_section
from opengnome.report.rounds import summarise
from opengnome.report.searches import searches_section
from opengnome.report.sections import (
    alignment_section,
    failures_section,
    models_section,
    rejections_section,
    rounds_section,
)
from opengnome.report.style import CSS

_LINKS = {
    "setting": "What was searched",
    "discoveries": "Discoveries",
    "hull": "Hull",
    "rounds": "Rounds",
    "compositions": "Compositions",
    "models": "Models",
    "alignment": "Alignment",
    "rejected": "Rejected",
    "failures": "Failures",
}


def write_report(root: Path, *, chemical_system: str | None = None, output: Path | None = None) -> Path:
    """Write the report of the campaign in `root`, finished or not, and return the path of the page.

    The page is `root/report.html` unless `output` names another file. CIFs of the discoveries are written into
    `root/discoveries/`, their table to `root/discoveries.csv`. `chemical_system` (e.g. ``Na-Zr-O``) chooses the
    hull that is drawn; by default that of the deepest discovery.

    Raises `CampaignError` when there is no campaign or it has not begun, `SettingsError` or
    `MissingReferenceError` when the chemical system cannot be drawn.
    """
    results = CampaignResults(root)
    page = root / "report.html" if output is None else output
    content = _page(results, chemical_system, page)
    write_discoveries(results)
    replace_file(page, lambda path: path.write_text(content, encoding="utf-8"))
    return page


def _page(results: CampaignResults, chemical_system: str | None, page: Path) -> str:
    summaries = summarise(results.state)
    body = [
        setting_section(results),
        discoveries_section(results, page=page),
        hull_section(results, chemical_system),
        rounds_section(results, summaries),
        searches_section(results),
        models_section(results),
        alignment_section(results),
        rejections_section(results, summaries),
        failures_section(results),
    ]
    footer = html.tag("footer", html.text(f"Written by opengnome {__version__} from the campaign's journal."))
    main = header(results, summaries) + _navigation(body) + "".join(body) + footer
    return _document(f"{results.settings.name}: report", html.tag("main", main))


def _navigation(body: list[str]) -> str:
    joined = "".join(body)
    present = {anchor: name for anchor, name in _LINKS.items() if f'<section id="{anchor}"' in joined}
    return html.tag("nav", " ".join(html.tag("a", name, href=f"#{anchor}") for anchor, name in present.items()))


def _document(title: str, main: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{main}\n</body>\n</html>\n"
    )
