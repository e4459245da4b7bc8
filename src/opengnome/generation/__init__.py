"""Candidates: new crystals proposed from known ones, from compositions, and at random."""

from opengnome.generation.candidate import Candidates, candidate_table
from opengnome.generation.composition_settings import CompositionRuleSettings, CompositionSettings
from opengnome.generation.compositions import composition_batches, formula_table, system_compositions
from opengnome.generation.generate import GenerationResult, generate
from opengnome.generation.novelty import known_composition_keys
from opengnome.generation.novelty_ladder import Novelty, NoveltyLadder, Rung
from opengnome.generation.oxidation import oxidation_states
from opengnome.generation.random_settings import RandomStructureSettings
from opengnome.generation.random_structures import METHOD as RANDOM_STRUCTURE
from opengnome.generation.random_structures import can_be_packed, keeps_coming_back, random_crystals
from opengnome.generation.settings import GenerationSettings

__all__ = [
    "RANDOM_STRUCTURE",
    "Candidates",
    "CompositionRuleSettings",
    "CompositionSettings",
    "GenerationResult",
    "GenerationSettings",
    "Novelty",
    "NoveltyLadder",
    "RandomStructureSettings",
    "Rung",
    "can_be_packed",
    "candidate_table",
    "composition_batches",
    "formula_table",
    "generate",
    "keeps_coming_back",
    "known_composition_keys",
    "oxidation_states",
    "random_crystals",
    "system_compositions",
]
