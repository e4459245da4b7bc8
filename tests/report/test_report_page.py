import csv
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from synthetic_campaign import begin, build_campaign, identifier, make_settings

from opengnome.campaign import CampaignResults
from opengnome.campaign.layout import Layout
from opengnome.crystals.io import read_crystals
from opengnome.errors import CampaignError
from opengnome.report import write_report

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """What a page is made of; fails on a tag that is not closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.references, self.words = [], set(), [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self._note(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._note(tag, dict(attrs))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def _note(self, tag, attributes):
        self.tags.add(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if tag == "a" else []
        for value in attributes.values():
            self.references += re.findall(r"url\(#([^)]+)\)", value or "")
        for name in ("href", "xlink:href"):
            if attributes.get(name, "").startswith("#"):
                self.references.append(attributes[name][1:])

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    root = build_campaign(tmp_path_factory.mktemp("report") / "toy")
    write_report(root)
    return root


@pytest.fixture(scope="module")
def source(campaign):
    return (campaign / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def test_the_page_needs_nothing_but_itself(source, page):
    assert "http:" not in source
    assert "https:" not in source
    assert not re.search(r"@import|src=|url\((?!#)", source)
    assert not page.tags & {"script", "link", "img", "iframe", "object"}


def test_ids_are_unique_and_every_reference_has_its_target(page):
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    assert len(page.references) > 20  # clip paths, markers, navigation


def test_no_number_is_written_as_nan(page):
    assert not re.search(r"\b(nan|inf|None)\b", page.text, flags=re.IGNORECASE)


def test_what_comes_from_data_is_escaped(source, page):
    assert "Toy <oxides> & chlorides" in page.text
    assert "the volume grew 3.2-fold <tag & more>" in page.text
    assert "<oxides>" not in source


def test_the_page_has_every_part(page):
    expected = {"discoveries", "hull", "rounds", "models", "alignment", "rejected", "failures", "setting"}
    assert expected <= set(page.ids)
    assert page.tags >= {"svg", "table", "details"}


def test_the_page_says_what_new_and_the_energies_mean(page):
    assert "a composition that is not among the 15 of the known set (15 crystals)" in page.text
    assert "level “toy potential”" in page.text
    assert "small one that comes with the package" not in page.text


def test_links_lead_to_the_cifs(campaign, page):
    files = [campaign / unquote(link) for link in page.links if not link.startswith("#")]
    assert len(files) == len(CampaignResults(campaign).discoveries) + 1  # and the table
    assert all(file.is_file() for file in files)


def test_links_hold_for_a_page_elsewhere(campaign, tmp_path):
    output = tmp_path / "elsewhere.html"
    assert write_report(campaign, output=output) == output
    links = [link for link in Page(output.read_text(encoding="utf-8")).links if not link.startswith("#")]
    assert links
    assert all((tmp_path / unquote(link)).resolve().is_file() for link in links)


def test_table_and_cifs_are_those_of_the_discoveries(campaign):
    discoveries = CampaignResults(campaign).discoveries
    rows = list(csv.DictReader((campaign / "discoveries.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["id"] for row in rows] == [d.id for d in discoveries]
    assert {path.stem for path in (campaign / "discoveries").iterdir()} == {d.id for d in discoveries}
    for row, discovery in zip(rows, discoveries, strict=True):
        assert (row["reduced_formula"], row["status"], row["reason"]) == (discovery.reduced_formula, "ok", "")
        assert float(row["decomposition_energy"]) == discovery.decomposition_energy
        (read,) = read_crystals(campaign / row["cif"])
        assert read.crystal is not None
        assert read.crystal.composition == discovery.crystal.composition


def test_cifs_of_former_discoveries_go_and_other_files_stay(tmp_path):
    root = build_campaign(tmp_path / "toy", n_closed=1)
    folder = root / "discoveries"
    folder.mkdir()
    former, mine = folder / f"{identifier('NaKCl2')}.cif", folder / "mine.cif"
    former.write_text("old")
    mine.write_text("kept")
    write_report(root)
    assert not former.exists()
    assert mine.read_text() == "kept"


def test_the_same_campaign_gives_the_same_page(campaign, source):
    assert write_report(campaign).read_text(encoding="utf-8") == source


@pytest.mark.parametrize(
    ("system", "title", "drawn"),
    [("O-Zr-Na", "Hull of Na-O-Zr", True), ("Na-Mg-K-Zr-O", "Hull of K-Mg-Na-O-Zr", False)],
)
def test_the_hull_of_a_chosen_system(campaign, tmp_path, system, title, drawn):
    output = write_report(campaign, chemical_system=system, output=tmp_path / "page.html")
    text = output.read_text(encoding="utf-8")
    assert f"<h2>{title}</h2>" in text
    assert ('id="hull-figure_1"' in text) == drawn
    Page(text)


def test_an_unfinished_first_round_says_so(tmp_path):
    root = build_campaign(tmp_path / "toy", n_closed=0, aligned=False)
    page = Page(write_report(root).read_text(encoding="utf-8"))
    assert "No round is closed yet" in page.text
    assert "unfinished: round 1, relaxations, 1 of 9 done" in page.text
    assert "1 of 9 so far" in page.text
    assert "alignment" not in page.ids
    assert "no statistical uncertainty is given" in page.text


def test_a_campaign_that_has_only_begun_is_reported(tmp_path):
    root = tmp_path / "begun"
    begin(root, make_settings(None, aligned=False))
    page = Page(write_report(root).read_text(encoding="utf-8"))
    assert "No round has begun yet." in page.text
    assert "small one that comes with the package" in page.text
    assert "There is no discovery yet" in page.text


def test_no_campaign_no_report(tmp_path):
    with pytest.raises(CampaignError, match=Layout(tmp_path).settings.name):
        write_report(tmp_path)
