"""Doing what `plan` orders: each kind of action has one method, which yields what happened."""

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import cached_property
from importlib import metadata
from pathlib import Path

import pyarrow.parquet as pq

from opengnome.campaign import work
from opengnome.campaign.actions import (
    Action,
    Align,
    AssembleEnsemble,
    Calculate,
    CloseRound,
    OpenRound,
    ScreenShard,
    Select,
    Start,
    TrainMember,
)
from opengnome.campaign.alignment import fit_per_element, no_alignment, reference_crystals
from opengnome.campaign.conversion import entry_of, has_energy
from opengnome.campaign.events import (
    Calculated,
    CampaignStarted,
    EnsembleAssembled,
    Event,
    MemberTrained,
    RoundClosed,
    RoundOpened,
    ShardScreened,
)
from opengnome.campaign.execution import Ended, Unit, run_units
from opengnome.campaign.knowledge import Knowledge
from opengnome.campaign.layout import Layout
from opengnome.campaign.metrics import round_metrics
from opengnome.campaign.pool import select_candidates
from opengnome.campaign.progress import Progress
from opengnome.campaign.seeds import seed_for
from opengnome.campaign.settings import CampaignSettings
from opengnome.campaign.state import CampaignState
from opengnome.campaign.strained import is_strained, strained_crystals
from opengnome.campaign.training_set import training_table
from opengnome.crystals import Crystal, CrystalTable, concatenate
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.io import read_table, write_table
from opengnome.datasets import load_known_set
from opengnome.errors import SettingsError
from opengnome.generation import GenerationSettings
from opengnome.models import assemble_ensemble
from opengnome.oracles import (
    Calculation,
    OracleIdentity,
    Status,
    make_oracle,
    read_calculation,
    write_calculation,
)

_VERSIONED = ("opengnome", "torch", "numpy", "chgnet", "ase", "moyopy", "vesin", "pymatgen-core")


class Performer:
    """Performs the actions of one campaign with the engines that its settings name."""

    def __init__(
        self,
        root: Path,
        settings: CampaignSettings,
        *,
        make_executor: Callable[[], Executor],
        progress: Progress,
    ) -> None:
        self.layout = Layout(root)
        self.settings = settings
        self.make_executor = make_executor
        self.progress = progress

    def __call__(self, state: CampaignState, actions: Sequence[Action]) -> Iterator[Event]:
        """Do `actions`, all of one kind, and yield events as work ends."""
        match actions[0]:
            case Start():
                yield self._start()
            case Align():
                yield self._align(state)
            case OpenRound(number):
                yield self._open_round(state, number)
            case TrainMember(number):
                yield from self._train(number, [a.member for a in actions if isinstance(a, TrainMember)])
            case AssembleEnsemble(number):
                yield self._assemble(state, number)
            case ScreenShard(number):
                yield from self._screen(state, number, [a.shard for a in actions if isinstance(a, ScreenShard)])
            case Select(number):
                yield select_candidates(self.layout, self.knowledge, state, number, self.progress)
            case Calculate(number):
                yield from self._calculate(number, [a.crystal_id for a in actions if isinstance(a, Calculate)])
            case CloseRound(number):
                yield self._close_round(state, number)

    @cached_property
    def knowledge(self) -> Knowledge:
        """Loaded at the first action that needs it."""
        return Knowledge(self.layout.root, load_known_set(self.settings.known), self.settings)

    @cached_property
    def _generation(self) -> GenerationSettings:
        """Generation limited to the elements of the known set: no other has a reference on its hull."""
        generation = self.settings.generation
        known = [SYMBOLS[z] for z in self.knowledge.known.elements]
        allowed = known if generation.allowed_elements is None else generation.allowed_elements
        return generation.model_copy(update={"allowed_elements": tuple(s for s in allowed if s in known)})

    def _start(self) -> Event:
        known = self.knowledge.known
        oracle = make_oracle(self.settings.oracle)  # a broken set-up is told now, not after the training
        if self.settings.alignment.scheme == "none" and oracle.identity.level != known.level:
            raise SettingsError(
                f"the known set is of level {known.level!r}, the oracle of level {oracle.identity.level!r}: "
                "energies of two levels do not share a hull. Set alignment.scheme = 'per_element', or give both "
                "the same known.level if they are the same"
            )
        references = self._reference_crystals()
        if references is not None:
            write_table(self.layout.references, references)
        self.progress.message(
            f"known set: {len(known.table)} crystals, {len(known.elements)} elements "
            f"({known.source}, level {known.level})"
        )
        return CampaignStarted(
            settings_digest=self.settings.digest,
            known_digest=known.digest,
            versions={name: metadata.version(name) for name in _VERSIONED} | {"python": platform.python_version()},
            reference_ids=() if references is None else tuple(references.ids),
        )

    def _reference_crystals(self) -> CrystalTable | None:
        """What the oracle computes before the first round: for the alignment, and at other volumes."""
        known, settings = self.knowledge.known, self.settings
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

    def _align(self, state: CampaignState) -> Event:
        if self.settings.alignment.scheme == "none":
            return no_alignment()
        aligned = fit_per_element(self.knowledge.known, state.references)
        self.progress.message(
            f"oracle against known set on {aligned.metrics['n_crystals']:.0f} compounds: "
            f"offset {1e3 * aligned.metrics['offset_before']:+.0f} meV/atom, "
            f"MAE {1e3 * aligned.metrics['mae_before']:.0f}, "
            f"after one shift per element {1e3 * aligned.metrics['mae_after']:.0f} meV/atom (cross-validated)"
        )
        return aligned

    def _open_round(self, state: CampaignState, number: int) -> Event:
        parents = self.knowledge.parents(state, number)
        training = training_table(self.knowledge, state, number)
        formulas = self.knowledge.formulas(state, number)
        write_table(self.layout.parents(number), parents)
        write_table(self.layout.training(number), training)
        self.layout.formulas(number).write_text("\n".join(formulas) + "\n")
        self.progress.message(
            f"round {number}: {len(parents)} parents, {len(formulas)} known compositions, "
            f"{len(training)} training crystals"
        )
        return RoundOpened(
            round=number,
            n_parents=len(parents),
            n_shards=-(-len(parents) // self.settings.parents.parents_per_shard),
            n_training=len(training),
            hull_digest=self.knowledge.hull(state, before_round=number).digest,
        )

    def _train(self, number: int, members: Sequence[int]) -> Iterator[Event]:
        units = {self.layout.member(number, member): (member, self._member_unit(number, member)) for member in members}
        stage = f"round {number}, training"
        for ended in self._run(stage, [unit for _, unit in units.values()]):
            _refuse_lost(ended)
            yield MemberTrained(
                round=number,
                member=units[ended.unit.path][0],
                path=self.layout.relative(ended.unit.path),
                metrics=_member_metrics(ended.unit.path),
            )

    def _member_unit(self, number: int, member: int) -> Unit:
        path = self.layout.member(number, member)
        log = path.with_suffix(".log")
        return Unit(
            path,
            work.train,
            {
                "path": path,
                "log": log,
                "training_path": self.layout.training(number),
                "model": self.settings.model,
                "training": self.settings.training,
                "seed": seed_for(self.settings.seed, "member", number, member),
            },
            log=log,
        )

    def _assemble(self, state: CampaignState, number: int) -> Event:
        table = read_table(self.layout.training(number))
        members = state.round(number).members
        ensemble = assemble_ensemble(
            [self.layout.root / members[m].path for m in sorted(members)],
            self.layout.ensemble(number),
            table=table,
            targets=table.arrow["target"].to_numpy(),
            held_out=table.arrow["held_out"].to_numpy(zero_copy_only=False),
        )
        metrics = {k: float(v) for k, v in ensemble.metrics.items() if isinstance(v, int | float)}
        self.progress.message(f"round {number}: ensemble ready, {_brief(metrics)}")
        return EnsembleAssembled(
            round=number,
            path=self.layout.relative(self.layout.ensemble(number)),
            digest=ensemble.digest,
            metrics=metrics,
        )

    def _screen(self, state: CampaignState, number: int, shards: Sequence[int]) -> Iterator[Event]:
        opened = state.round(number).opened
        n_parents = 0 if opened is None else opened.n_parents
        size = self.settings.parents.parents_per_shard
        numbers = {self.layout.shard(number, shard): shard for shard in shards}
        units = [
            Unit(
                path,
                work.screen,
                {
                    "path": path,
                    "parents_path": self.layout.parents(number),
                    "start": shard * size,
                    "stop": min((shard + 1) * size, n_parents),
                    "formulas_path": self.layout.formulas(number),
                    "generation": self._generation,
                    "screening": self.settings.screening,
                    "ensemble_path": self.layout.ensemble(number),
                    "seed": seed_for(self.settings.seed, "generation", number),
                },
            )
            for path, shard in numbers.items()
        ]
        for ended in self._run(f"round {number}, screening shards", units):
            _refuse_lost(ended)
            yield ShardScreened(
                round=number,
                shard=numbers[ended.unit.path],
                path=self.layout.relative(ended.unit.path),
                counts=_shard_counts(ended.unit.path),
            )

    def _calculate(self, number: int, crystal_ids: Sequence[str]) -> Iterator[Event]:
        table = read_table(self.layout.references if number == 0 else self.layout.chosen(number))
        position = {identifier: i for i, identifier in enumerate(table.ids)}
        crystals = {identifier: table[position[identifier]] for identifier in crystal_ids}
        units = {i: self._calculation_unit(crystal, strained=is_strained(i)) for i, crystal in crystals.items()}
        by_path: dict[Path, list[str]] = {}
        for identifier, unit in units.items():  # two ids may name the same crystal: one unit
            by_path.setdefault(unit.path, []).append(identifier)
        n_converged = n_strained = 0
        distinct = {unit.path: unit for unit in units.values()}

        def note() -> str:
            return f"{n_converged} converged" + (f", {n_strained} single points" if n_strained else "")

        stage = "reference calculations" if number == 0 else f"round {number}, relaxations"
        for ended in self._run(stage, list(distinct.values()), note=note):
            calculation = self._read_or_record_loss(ended, crystals[by_path[ended.unit.path][0]])
            if is_strained(by_path[ended.unit.path][0]):
                n_strained += calculation.energy is not None
            else:
                n_converged += calculation.status == Status.CONVERGED
            for identifier in by_path[ended.unit.path]:
                yield self._calculated(number, identifier, crystals[identifier], calculation, ended.unit.path)

    def _calculation_unit(self, crystal: Crystal, *, strained: bool) -> Unit:
        oracle = self.settings.oracle
        if strained:  # at the given volume, so without a step
            oracle = oracle.model_copy(update={"relaxation": oracle.relaxation.model_copy(update={"max_steps": 0})})
        path = self.layout.calculation(work.calculation_key(crystal, oracle))
        return Unit(path, work.calculate, {"path": path, "crystal": crystal, "settings": oracle})

    def _read_or_record_loss(self, ended: Ended, crystal: Crystal) -> Calculation:
        if ended.lost:
            identity = make_oracle(self.settings.oracle).identity
            write_calculation(ended.unit.path, lost_calculation(crystal, identity, reason=ended.lost))
        return read_calculation(ended.unit.path)

    def _calculated(
        self, number: int, identifier: str, crystal: Crystal, calculation: Calculation, path: Path
    ) -> Event:
        return Calculated(
            round=number,
            crystal_id=identifier,
            reduced_formula=crystal.reduced_formula,
            status=calculation.status.value,
            reason=calculation.reason,
            energy_per_atom=calculation.energy_per_atom,
            n_steps=calculation.n_steps,
            seconds=calculation.seconds,
            path=self.layout.relative(path),
        )

    def _close_round(self, state: CampaignState, number: int) -> Event:
        current = state.round(number)
        if current.selection is None or state.alignment is None:
            raise ValueError(f"round {number} has no selection: plan() orders Select before CloseRound")
        level = self.knowledge.known.level
        entries = {
            i: entry_of(c, state.alignment, level=level) for i, c in current.calculations.items() if has_energy(c)
        }
        metrics = round_metrics(
            current.selection.choices,
            current.calculations,
            entries,
            initial_hull=self.knowledge.initial_hull,
            current_hull=self.knowledge.hull(state, before_round=number + 1),
        )
        self.progress.message(f"round {number} closed: {_brief(metrics)}")
        return RoundClosed(round=number, metrics=metrics)

    def _run(self, stage: str, units: Sequence[Unit], *, note: Callable[[], str] = lambda: "") -> Iterator[Ended]:
        done = 0

        def tick(running: list[Unit]) -> None:
            lines = [_last_line(unit.log) for unit in running if unit.log is not None]
            self.progress.step(stage, done, len(units), next((line for line in lines if line), note()))

        for ended in run_units(units, self.make_executor, attempts=self.settings.execution.attempts, on_wait=tick):
            done += 1
            yield ended
            self.progress.step(stage, done, len(units), note())


def lost_calculation(crystal: Crystal, oracle: OracleIdentity, *, reason: str) -> Calculation:
    """The record of a calculation that took its process down every time."""
    return Calculation(
        status=Status.FAILED,
        reason=reason,
        initial=crystal,
        crystal=None,
        energy=None,
        forces=None,
        stress=None,
        frames=None,
        n_steps=0,
        fmax=None,
        seconds=0.0,
        oracle=oracle,
    )


def _refuse_lost(ended: Ended) -> None:
    if ended.lost:
        raise SettingsError(
            f"{ended.unit.path.name}: {ended.lost}; most likely memory ran out. Use fewer workers or smaller batches"
        )


def _member_metrics(path: Path) -> dict[str, float]:
    metrics = json.loads(path.with_suffix(".json").read_text()).get("metrics", {})
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}


def _shard_counts(path: Path) -> dict[str, int]:
    stored = pq.read_schema(path).metadata or {}
    prefix = work.COUNT_PREFIX.encode()
    return {k.removeprefix(prefix).decode(): int(v) for k, v in stored.items() if k.startswith(prefix)}


def _last_line(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    lines = path.read_text().splitlines()
    return lines[-1] if lines else ""


def _brief(metrics: dict[str, float]) -> str:
    shown = {
        "mae": "held-out MAE {:.3f} eV/atom",
        "model.hit_rate_initial": "hit rate {:.0%} against the known hull",
        "model.hit_rate_current": "{:.0%} against the current hull",
        "random_filtered.hit_rate_initial": "random control {:.0%}",
        "model.mae": "model MAE {:.3f} eV/atom",
    }
    return ", ".join(text.format(metrics[name]) for name, text in shown.items() if name in metrics)
