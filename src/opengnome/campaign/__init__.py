"""The discovery loop: settings, events, state, selection, execution; `discover` runs it."""

from opengnome.campaign.discover import discover, read_settings, read_state
from opengnome.campaign.progress import Progress
from opengnome.campaign.results import CampaignResults, Discovery
from opengnome.campaign.settings import CampaignSettings

__all__ = [
    "CampaignResults",
    "CampaignSettings",
    "Discovery",
    "Progress",
    "discover",
    "read_settings",
    "read_state",
]
