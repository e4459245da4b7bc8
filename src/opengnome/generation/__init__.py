"""Candidates: new crystals proposed from known ones."""

from opengnome.generation.candidate import Candidate, Provenance, candidate_table
from opengnome.generation.generate import GenerationResult, generate
from opengnome.generation.oxidation import oxidation_states
from opengnome.generation.settings import GenerationSettings

__all__ = [
    "Candidate",
    "GenerationResult",
    "GenerationSettings",
    "Provenance",
    "candidate_table",
    "generate",
    "oxidation_states",
]
