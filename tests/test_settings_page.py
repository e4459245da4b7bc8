"""The page of the settings is that of the code, and says something of every one."""

import runpy
from pathlib import Path

from opengnome.campaign import CampaignSettings

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "write_settings_docs.py"))


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == SCRIPT["page"](), (
        "run python scripts/write_settings_docs.py docs/settings.md"
    )


def test_every_setting_is_described() -> None:
    described = {(path, model) for path, _, model in SCRIPT["sections"](CampaignSettings, "", "")}
    assert {path for path, _ in described} >= {
        "known",
        "model",
        "training",
        "compositions.proposals.rule",
        "oracle.gpaw",
    }
    without = [
        f"{path}.{name}"
        for path, model in described
        for name, field in model.model_fields.items()
        if not field.description and not SCRIPT["models_of"](field.annotation)
    ]
    assert without == []
