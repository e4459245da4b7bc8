"""Public and embedded tables of known crystals, readers of hull entries, and the hash split of every data set."""

from opengnome.datasets.chemical_systems import elements_of_system, subsystems
from opengnome.datasets.entries_json import entries_from_dicts, read_computed_entries
from opengnome.datasets.entry_files import FORMATS, read_entries, read_references
from opengnome.datasets.entry_rows import (
    IN_THE_ENERGY,
    NO_CORRECTION,
    ZERO_BY_DEFINITION,
    EnergyKind,
    ReadEntries,
    RejectedRow,
    elements_at_zero,
)
from opengnome.datasets.entry_tables import EnergyColumn, entries_from_columns, read_entry_table
from opengnome.datasets.gnome_release import read_gnome_summary
from opengnome.datasets.known import (
    EMBEDDED,
    KnownSet,
    KnownSetSettings,
    load_elemental_crystals,
    load_embedded_frames,
    load_known_set,
)
from opengnome.datasets.materials_project import entries_from_documents, fetch_documents, read_materials_project
from opengnome.datasets.optimade import (
    chemical_system_filter,
    crystals_from_structures,
    entries_from_structures,
    fetch_structures,
    read_optimade,
)
from opengnome.datasets.splits import hash_bucket, held_out_mask, is_train

__all__ = [
    "EMBEDDED",
    "FORMATS",
    "IN_THE_ENERGY",
    "NO_CORRECTION",
    "ZERO_BY_DEFINITION",
    "EnergyColumn",
    "EnergyKind",
    "KnownSet",
    "KnownSetSettings",
    "ReadEntries",
    "RejectedRow",
    "chemical_system_filter",
    "crystals_from_structures",
    "elements_at_zero",
    "elements_of_system",
    "entries_from_columns",
    "entries_from_dicts",
    "entries_from_documents",
    "entries_from_structures",
    "fetch_documents",
    "fetch_structures",
    "hash_bucket",
    "held_out_mask",
    "is_train",
    "load_elemental_crystals",
    "load_embedded_frames",
    "load_known_set",
    "read_computed_entries",
    "read_entries",
    "read_entry_table",
    "read_gnome_summary",
    "read_materials_project",
    "read_optimade",
    "read_references",
    "subsystems",
]
