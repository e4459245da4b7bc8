"""Retrospective campaigns: a strategy measured against a table whose energies are all known.

A part of the table is known at the start, the rest is the pool. In every round an ensemble is trained on what is known,
the pool is predicted, a strategy chooses, and the recorded oracle looks the energies up. So rules are compared with
real answers in minutes per round, which no campaign with new calculations allows; enrichment over random choice and
repeats follow Rohr et al. 2020 (doi:10.1039/C9SC05999G), campaigns against a known hull Montoya et al. 2020
(doi:10.1039/D0SC01101K). Shipped networks are trained on such tables and may not be asked here.

    OUTPUT/settings.json                          the conditions that all results of the folder share
    OUTPUT/graphs/                                graphs of all crystals, once
    OUTPUT/repeat-00/first-round/                 the ensemble of the first round, the same for all strategies
    OUTPUT/repeat-00/<strategy>/round-1.json      what was chosen, what was answered, and how good the model was

A folder is gone on with after every round, and a member that is trained is not trained again.
"""

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import numpy as np

from opengnome.campaign.acquisition import distances_among_candidates
from opengnome.campaign.retrospective_model import PoolPrediction, predict_pool
from opengnome.campaign.retrospective_settings import RetrospectiveSettings, Strategy
from opengnome.campaign.retrospective_table import Progress, RetrospectiveTable
from opengnome.campaign.seeds import seed_for
from opengnome.campaign.selection import (
    MODEL,
    RANDOM_UNFILTERED,
    Pool,
    choose,
    lowest_per_composition,
    within_window,
)
from opengnome.errors import CampaignError, CheckpointError
from opengnome.hull import STABILITY_TOLERANCE, Hull
from opengnome.models.checkpoint import read_json, write_json
from opengnome.oracles import OracleSettings
from opengnome.oracles.recorded import RecordedOracle

_CONDITIONS = "settings.json"


@dataclass(frozen=True)
class RetrospectiveRound:
    """One round as it was; lists have one item per calculation, in the order of choice."""

    number: int
    ids: list[str]
    energies: list[float | None]
    """Formation energies as the oracle answered, eV/atom; None where it had no answer."""
    hull_energies: list[float]
    """Of the hull at the start of the round, at each composition, eV/atom."""
    initial_hull_energies: list[float]
    """Of the hull at the start of the campaign."""
    predicted: list[float | None]
    """Predicted formation energies, eV/atom; None without a model."""
    stds: list[float | None]
    """Calibrated standard deviations, eV/atom."""
    metrics: dict[str, float]
    """Errors of the model on held-out known crystals and on the whole pool, sizes, seconds."""


@dataclass(frozen=True, eq=False)
class RetrospectiveCampaign:
    """One strategy from one start."""

    table: RetrospectiveTable
    settings: RetrospectiveSettings
    strategy: Strategy
    output: Path
    repeat: int
    oracle: RecordedOracle
    progress: Progress | None = None

    @property
    def folder(self) -> Path:
        """Where the rounds are."""
        return self.output / f"repeat-{self.repeat:02d}" / self.strategy.name

    def members(self, number: int) -> Path:
        """Where the ensemble of a later round is; that of the first round is shared and stays (`first_round`)."""
        return self.folder / f"members-{number}"

    @property
    def first_round(self) -> Path:
        """The ensemble of the first round, the same for all strategies of the repeat."""
        return self.folder.parent / "first-round"

    @cached_property
    def start(self) -> np.ndarray:
        """Rows known at the start."""
        return self.table.start_rows(self.settings, self.repeat)

    @cached_property
    def initial_hull(self) -> Hull:
        return self.table.hull(self.start)

    def run_round(self, number: int, done: Sequence[RetrospectiveRound]) -> RetrospectiveRound:
        """Train on the start and all of `done`, choose, and ask the oracle."""
        known, energies = self._known(done)
        asked = [self.table.row_of_id[identifier] for record in done for identifier in record.ids]
        pool = np.setdiff1d(np.flatnonzero(self.table.usable), np.concatenate([self.start, np.array(asked, dtype=int)]))
        hull = self.table.hull(known) if done else self.initial_hull
        compositions = self.table.compositions.take(pool)
        hull_energies = hull.formation_energies(compositions, hull.energies_per_atom_at(compositions))
        prediction = self._predict(number, known, energies, pool) if self.strategy.needs_model else None
        positions, counts = self._choose(number, hull, pool, prediction, hull_energies)
        nothing = np.full(len(pool), None)
        return RetrospectiveRound(
            number=number,
            ids=[self.table.table.ids[row] for row in pool[positions].tolist()],
            energies=(answers := self._calculate(pool[positions])),
            hull_energies=hull_energies[positions].tolist(),
            initial_hull_energies=self._initial_hull_energies(pool[positions]),
            predicted=(nothing if prediction is None else prediction.formation_energies)[positions].tolist(),
            stds=(nothing if prediction is None else prediction.stds)[positions].tolist(),
            metrics=counts | self._errors(pool, prediction) | {"n_failed": float(answers.count(None))},
        )

    def tell(self, record: RetrospectiveRound) -> None:
        """One line on a round."""
        if self.progress is None:
            return
        rows = [self.table.row_of_id[identifier] for identifier in record.ids]
        stable = float((self.table.energy_above_hull[rows] <= STABILITY_TOLERANCE).mean())
        mae = record.metrics.get("pool_mae")
        error = "" if mae is None else f", pool error {1000 * mae:.0f} meV/atom"
        self.progress(
            f"repeat {self.repeat}, {self.strategy.name}, round {record.number}: {len(rows)} calculated, "
            f"{100 * stable:.0f} % stable{error}, {record.metrics['seconds']:.0f} s"
        )

    def _known(self, done: Sequence[RetrospectiveRound]) -> tuple[np.ndarray, np.ndarray]:
        """Rows with a known energy, and their formation energies, eV/atom: those of the start, then the answers."""
        answers = [
            (self.table.row_of_id[identifier], energy)
            for record in done
            for identifier, energy in zip(record.ids, record.energies, strict=True)
            if energy is not None
        ]
        rows = np.array([row for row, _ in answers], dtype=int)
        energies = np.array([energy for _, energy in answers], dtype=float)
        start = self.table.formation_energies[self.start]
        return np.concatenate([self.start, rows]), np.concatenate([start, energies])

    def _predict(self, number: int, known: np.ndarray, energies: np.ndarray, pool: np.ndarray) -> PoolPrediction:
        initial = None
        if number > 1 and self.settings.initial == "previous":
            initial = self.members(number - 1) if number > 2 else self.first_round
        return predict_pool(
            self.table,
            self.settings,
            known=known,
            energies=energies,
            asked=pool,
            identity=(self.repeat, number),
            folder=self.members(number) if number > 1 else self.first_round,
            initial=initial,
            progress=self.progress,
        )

    def _choose(
        self,
        number: int,
        hull: Hull,
        pool: np.ndarray,
        prediction: PoolPrediction | None,
        hull_energies: np.ndarray,
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Positions in `pool` by the filters and the choice of a campaign, and what the filters left."""
        ids, formulas = self.table.table.ids, self.table.table.reduced_formulas
        candidates = Pool(
            [ids[row] for row in pool.tolist()],
            [formulas[row] for row in pool.tolist()],
            np.full(len(pool), np.nan) if prediction is None else prediction.formation_energies - hull_energies,
            np.full(len(pool), np.nan) if prediction is None else prediction.stds,
        )
        window = within_window(candidates, window=self.settings.window)
        kept = lowest_per_composition(candidates, window)
        if prediction is not None and self.strategy.competitors == "candidates":
            among = np.full(len(pool), np.nan)  # of the kept alone: others of a composition would compete with it
            names, compositions = [candidates.ids[i] for i in kept.tolist()], self.table.compositions.take(pool[kept])
            among[kept] = distances_among_candidates(hull, names, compositions, prediction.formation_energies[kept])
            candidates = replace(candidates, among_candidates=among)
        rounds = self.strategy.rounds(self.settings.budgets[number - 1])
        seed = seed_for(self.settings.seed, "retrospective selection", self.repeat, number)
        chosen = choose(candidates, kept, rounds, seed=seed)[MODEL if self.strategy.needs_model else RANDOM_UNFILTERED]
        counts = {"n_pool": len(pool), "n_within_window": int(window.sum()), "n_compositions": len(kept)}
        return np.array(chosen, dtype=int), {name: float(count) for name, count in counts.items()}

    def _calculate(self, rows: np.ndarray) -> list[float | None]:
        """Formation energies by the oracle, eV/atom; None where it has no answer."""
        energies = np.full(len(rows), np.nan)
        for place, row in enumerate(rows.tolist()):
            answer = self.oracle.relax(self.table.table[row])
            if answer.energy is not None and answer.crystal is not None:
                energies[place] = answer.energy / answer.crystal.n_atoms
        formation = self.table.full_hull.formation_energies(self.table.compositions.take(rows), energies)
        return [None if np.isnan(energy) else energy for energy in formation.tolist()]

    def _initial_hull_energies(self, rows: np.ndarray) -> list[float]:
        compositions, hull = self.table.compositions.take(rows), self.initial_hull
        return hull.formation_energies(compositions, hull.energies_per_atom_at(compositions)).tolist()

    def _errors(self, pool: np.ndarray, prediction: PoolPrediction | None) -> dict[str, float]:
        """Errors of the model, eV/atom: on held-out known crystals and, as only this setting allows, on the pool."""
        if prediction is None:
            return {}
        errors = np.abs(prediction.formation_energies - self.table.formation_energies[pool])
        of_pool = {"pool_mae": float(errors.mean()), "pool_median_error": float(np.median(errors))}
        return prediction.metrics | of_pool


def run_retrospective(
    table: RetrospectiveTable,
    settings: RetrospectiveSettings,
    output: Path,
    *,
    repeats: Iterable[int],
    progress: Progress | None = None,
) -> None:
    """Run all strategies of each repeat, and go on where an earlier run has stopped.

    The strategies of a repeat advance together, round by round, so at any time all can be compared as far as they are.
    Repeats differ in the crystals known at the start and in all seeds; the strategies of a repeat share the start, the
    ensemble of the first round, and the seeds. Raises `CampaignError` when `output` holds results of other conditions.
    """
    check_conditions(table, settings, output)
    oracle = RecordedOracle(
        OracleSettings(name="recorded", table=table.path, energy_column=settings.energy_column, level=table.known.level)
    )
    for repeat in repeats:
        campaigns = [
            run_campaign(RetrospectiveCampaign(table, settings, strategy, output, repeat, oracle, progress))
            for strategy in settings.strategies
        ]
        for _ in zip_longest(*campaigns):  # advances them together
            pass


def run_campaign(campaign: RetrospectiveCampaign) -> Iterator[RetrospectiveRound]:
    """The rounds of a campaign; each is on disk before it is given, and those on disk are not run again."""
    done: list[RetrospectiveRound] = []
    for number in range(1, campaign.settings.n_rounds + 1):
        path = campaign.folder / f"round-{number}.json"
        if path.exists():
            record = read_round(path)
        else:
            began = time.perf_counter()
            record = campaign.run_round(number, done)
            record.metrics["seconds"] = time.perf_counter() - began
            write_json(path, asdict(record))
            # only the next round goes on from the members of a round
            shutil.rmtree(campaign.members(number - 1), ignore_errors=True)
            campaign.tell(record)
        done.append(record)
        yield record
    shutil.rmtree(campaign.members(campaign.settings.n_rounds), ignore_errors=True)


def read_round(path: Path) -> RetrospectiveRound:
    """A round from disk; raises `CheckpointError` when the file is damaged."""
    content = read_json(path)
    if set(content) != {field.name for field in fields(RetrospectiveRound)}:
        raise CheckpointError(f"{path} is not a round of a retrospective campaign; delete it, it is run again")
    return RetrospectiveRound(**content)


def read_campaign(folder: Path) -> list[RetrospectiveRound]:
    """The rounds of one strategy that are finished, in order."""
    rounds: list[RetrospectiveRound] = []
    while (path := folder / f"round-{len(rounds) + 1}.json").exists():
        rounds.append(read_round(path))
    return rounds


def check_conditions(table: RetrospectiveTable, settings: RetrospectiveSettings, output: Path) -> None:
    """Write the conditions into a new folder, or compare them with those of an old one; strategies may be added.

    Raises `CampaignError` when they differ: curves of different conditions must not be averaged.
    """
    path = output / _CONDITIONS
    conditions = {"table": table.known.digest, **json.loads(settings.conditions)}
    strategies = {strategy.name: strategy.model_dump(mode="json") for strategy in settings.strategies}
    found = read_json(path) if path.exists() else {"conditions": conditions, "strategies": {}}
    differing = [name for name, value in conditions.items() if found["conditions"].get(name) != value]
    differing += [f"strategy {n!r}" for n, value in strategies.items() if found["strategies"].get(n, value) != value]
    if differing:
        raise CampaignError(
            f"{output} has results of other conditions ({', '.join(differing)}); choose another folder, or set these "
            f"as in {path}"
        )
    write_json(path, {"conditions": conditions, "strategies": found["strategies"] | strategies})
