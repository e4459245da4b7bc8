"""Before the first round: fix the known set, compute reference crystals, align the oracle with it."""

import platform
from contextlib import suppress
from importlib import metadata
from importlib.metadata import PackageNotFoundError

import numpy as np

from opengnome.campaign.alignment import fit_per_element, no_alignment, reference_crystals
from opengnome.campaign.context import Context
from opengnome.campaign.events import Aligned, CampaignStarted
from opengnome.campaign.state import CampaignState
from opengnome.campaign.strained import strained_crystals
from opengnome.crystals import CrystalTable, concatenate
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.io import write_table
from opengnome.errors import ElementsLackDataError, SettingsError
from opengnome.oracles import Oracle, OracleIdentity, make_oracle

_VERSIONED = ("opengnome", "torch", "numpy", "chgnet", "ase", "moyopy", "vesin", "pymatgen-core")

_OPTIONAL = ("gpaw", "gpaw-data", "custodian", "pymatgen")
"""Packages that compute where they are installed."""


def start(context: Context) -> CampaignStarted:
    """Fix what the campaign stands on.

    Raises `SettingsError` when oracle and known set do not fit together, `OracleSetupError` when the oracle lacks
    something for elements that it will be asked for.
    """
    known = context.knowledge.known
    oracle = make_oracle(context.settings.oracle)  # a broken set-up is told now, not after the training
    if context.settings.alignment.scheme == "none" and oracle.identity.level != known.level:
        raise SettingsError(
            f"the known set is of level {known.level!r}, the oracle of level {oracle.identity.level!r}: "
            "energies of two levels do not share a hull. Set alignment.scheme = 'per_element', or give both "
            "the same known.level if they are the same"
        )
    if context.settings.alignment.scheme == "per_element" and known.energy_kind != "formation":
        raise SettingsError(
            "alignment.scheme = 'per_element' fits formation energies, but the known set has total energies; name a "
            "column of formation energies with known.energy_column"
        )
    missing = [SYMBOLS[z] for z in known.elements if z not in context.knowledge.initial_hull.elemental_references]
    if missing:
        raise SettingsError(
            f"the known set has no elemental entry of {', '.join(missing)}: nothing made of them has a formation "
            "energy. Add them to the table or leave these elements out with known.elements"
        )
    references = _crystals_to_compute(context)
    _check_elements(context, oracle, references)
    if references is not None:
        write_table(context.layout.references, references)
    context.progress.message(
        f"known set: {len(known.table)} crystals, {len(known.elements)} elements ({known.source}, level {known.level})"
    )
    for reason, n_rows in known.left_out.items():
        context.progress.message(f"{n_rows} rows of the known set are left out: {reason}")
    return CampaignStarted(
        settings_digest=context.settings.digest,
        known_digest=known.digest,
        versions=versions(),
        oracle_level=oracle.identity.level,
        oracle_version=oracle.identity.version,
        reference_ids=() if references is None else tuple(references.ids),
    )


def versions() -> dict[str, str]:
    """Versions of everything that computes."""
    found = {name: metadata.version(name) for name in _VERSIONED}
    for name in _OPTIONAL:
        with suppress(PackageNotFoundError):
            found[name] = metadata.version(name)
    return found | {"python": platform.python_version()}


def changed_versions(before: dict[str, str]) -> list[str]:
    """What differs from earlier versions, e.g. ``chgnet 0.4.2 -> 0.5.0``; what they did not have is no difference."""
    now = dict.fromkeys(before, "not installed") | versions()
    return [f"{name} {version} -> {now[name]}" for name, version in before.items() if version != now[name]]


def changed_code(started: CampaignStarted, identity: OracleIdentity) -> list[str]:
    """The same of the oracle's code where that is none of the packages, e.g. the content of a recorded table."""
    before, now = started.oracle_version, identity.version
    if not before or not now or before == now or identity.code in started.versions:
        return []
    return [f"{identity.code} {before} -> {now}"]


def align(context: Context, state: CampaignState) -> Aligned:
    """Fit the alignment that the settings ask for."""
    if context.settings.alignment.scheme == "none":
        return no_alignment()
    aligned = fit_per_element(context.knowledge.known, state.references)
    context.progress.message(
        f"oracle against known set on {aligned.metrics['n_crystals']:.0f} compounds: "
        f"offset {1e3 * aligned.metrics['offset_before']:+.0f} meV/atom, "
        f"MAE {1e3 * aligned.metrics['mae_before']:.0f}, "
        f"after one shift per element {1e3 * aligned.metrics['mae_after']:.0f} meV/atom (cross-validated)"
    )
    return aligned


def _check_elements(context: Context, oracle: Oracle, references: CrystalTable | None) -> None:
    """Tell now what no crystal with an element will have: a campaign that finds out later has lost its choices."""
    asked = set(np.flatnonzero(context.generation.element_mask()).tolist())
    if references is not None:
        asked.update(number for crystal in references for number in crystal.atomic_numbers.tolist())
    try:
        oracle.check_elements(sorted(asked))
    except ElementsLackDataError as error:
        hint = "known.elements and generation.allowed_elements say which elements a campaign has"
        raise ElementsLackDataError(f"{error} ({hint})") from error


def _crystals_to_compute(context: Context) -> CrystalTable | None:
    """What the oracle computes before the first round: for the alignment, and at other volumes."""
    known, settings = context.knowledge.known, context.settings
    tables = []
    if settings.alignment.scheme == "per_element":
        n_crystals = settings.alignment.n_crystals
        max_atoms = settings.parents.max_atoms
        tables.append(reference_crystals(known, n_crystals=n_crystals, max_atoms=max_atoms, seed=settings.seed))
    strained = strained_crystals(
        known,
        n_crystals=settings.training_set.strained_crystals,
        volumes=settings.training_set.strain_volumes,
        max_atoms=settings.training_set.max_atoms,
        seed=settings.seed,
    )
    tables += [] if strained is None else [strained]
    return concatenate(tables) if tables else None
