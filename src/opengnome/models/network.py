"""The networks by the name of their configuration."""

from typing import Annotated, Any, overload

from pydantic import Discriminator, Tag

from opengnome.models.compositional import CompositionalModel, CompositionalSettings
from opengnome.models.constants import Constants
from opengnome.models.paper import PaperNetwork, PaperSettings
from opengnome.models.structural import StructuralNetwork, StructuralSettings

StructuralModel = StructuralNetwork | PaperNetwork
"""A structural network of either configuration."""
AnyModelSettings = StructuralSettings | PaperSettings
"""Settings of either structural network."""
AnyNetworkSettings = StructuralSettings | PaperSettings | CompositionalSettings
"""Settings of any network."""


def _configuration(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("configuration", "default"))
    return str(getattr(value, "configuration", "default"))


ModelSettings = Annotated[
    Annotated[StructuralSettings, Tag("default")] | Annotated[PaperSettings, Tag("paper")],
    Discriminator(_configuration),
]
"""Settings of a structural network in a settings file; `configuration` says which, "default" when it is left out."""
NetworkSettings = Annotated[
    Annotated[StructuralSettings, Tag("default")]
    | Annotated[PaperSettings, Tag("paper")]
    | Annotated[CompositionalSettings, Tag("compositional")],
    Discriminator(_configuration),
]
"""Settings of any network, as in a checkpoint."""


@overload
def make_network(settings: AnyModelSettings, constants: Constants) -> StructuralModel: ...
@overload
def make_network(settings: CompositionalSettings, constants: Constants) -> CompositionalModel: ...
def make_network(settings: AnyNetworkSettings, constants: Constants) -> StructuralModel | CompositionalModel:
    """The network that `settings` describe, with weights drawn from torch's global generator."""
    if isinstance(settings, PaperSettings):
        return PaperNetwork(settings, constants)
    if isinstance(settings, CompositionalSettings):
        return CompositionalModel(settings, constants)
    return StructuralNetwork(settings, constants)
