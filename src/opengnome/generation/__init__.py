"""Candidates: new crystals proposed from known ones."""

from opengnome.generation.candidate import Candidates, candidate_table
from opengnome.generation.generate import GenerationResult, generate
from opengnome.generation.oxidation import oxidation_states
from opengnome.generation.settings import GenerationSettings

__all__ = [
    "Candidates",
    "GenerationResult",
    "GenerationSettings",
    "candidate_table",
    "generate",
    "oxidation_states",
]
