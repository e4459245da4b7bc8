"""The lowest crystal of a composition: random crystals relaxed by the oracle until the best keeps coming back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.campaign import work
from opengnome.campaign.context import Context
from opengnome.campaign.events import Calculated, Searched
from opengnome.campaign.execution import Unit
from opengnome.campaign.seeds import seed_for
from opengnome.campaign.settings import CompositionSearchSettings
from opengnome.campaign.state import CampaignState
from opengnome.crystals import Composition, Crystal
from opengnome.crystals.replacement import replace_file
from opengnome.errors import WorkFailedError
from opengnome.generation import RandomStructureSettings, keeps_coming_back, random_crystals
from opengnome.oracles import Calculation, OracleSettings, Status, make_oracle, read_calculation, write_calculation
from opengnome.oracles.relaxation import failed

_CRYSTALS_AT_ONCE = 10


@dataclass(frozen=True)
class SearchRule:
    """When a search ends."""

    n_starts: int
    """Most random crystals."""
    min_completed: int
    """Converged relaxations before it may end early."""
    same_minimum: int
    """It ends when the lowest energy has come back this many times ..."""
    same_energy: float
    """... within this, eV/atom."""

    @classmethod
    def of(cls, settings: CompositionSearchSettings) -> "SearchRule":
        """The rule of a campaign."""
        return cls(settings.n_starts, settings.min_completed, settings.same_minimum, settings.same_energy)

    def is_over(self, energies: Sequence[float]) -> bool:
        """Whether a search with these energies of converged relaxations, eV/atom, can end."""
        return len(energies) >= self.min_completed and keeps_coming_back(
            energies, tolerance=self.same_energy, times=self.same_minimum
        )


@dataclass(frozen=True)
class Search:
    """One search: everything its runs depend on."""

    formula: str
    structures: RandomStructureSettings
    oracle: OracleSettings
    rule: SearchRule
    seed: int
    calculations: Path
    """Folder of all calculations of the campaign."""

    def starts(self) -> Iterator[tuple[int, Crystal, Path]]:
        """Random crystals with their numbers and the files of their calculations."""
        composition = Composition.from_formula(self.formula)
        for first in range(0, self.rule.n_starts, _CRYSTALS_AT_ONCE):
            stop = min(first + _CRYSTALS_AT_ONCE, self.rule.n_starts)
            table = random_crystals(composition, self.structures, seed=self.seed, start=first, stop=stop)
            for number, crystal in enumerate(table, first):
                key = work.calculation_key(crystal, self.oracle)
                yield number, crystal, self.calculations / f"{key}.parquet"


def search_compositions(
    context: Context, state: CampaignState, number: int, candidate_ids: Sequence[str]
) -> Iterator[Searched | Calculated]:
    """Search for the lowest crystals of the named compositions; for each its calculation, then what the search was."""
    compositions = state.round(number).compositions
    if compositions is None:
        raise ValueError(f"round {number} has no compositions: plan() orders ProposeCompositions before any search")
    formulas = {choice.candidate_id: choice.reduced_formula for choice in compositions.choices}
    searches = {context.layout.search(number, i): (i, _search(context, formulas[i])) for i in candidate_ids}
    units = [
        Unit(path, search, {"path": path, "log": path.with_suffix(".log"), "of": of}, log=path.with_suffix(".log"))
        for path, (_, of) in searches.items()
    ]
    while units:
        again: list[Unit] = []
        for ended in context.run(f"round {number}, structure searches", units):
            candidate_id, of = searches[ended.unit.path]
            if ended.lost:  # one crystal is to blame, the others are not
                _record_loss(of, ended.lost)
                again.append(ended.unit)
            else:
                yield from _events(context, number, candidate_id, of.formula, ended.unit.path)
        units = again


def _search(context: Context, formula: str) -> Search:
    settings = context.settings.compositions
    return Search(
        formula=formula,
        structures=settings.structures,
        oracle=context.settings.oracle,
        rule=SearchRule.of(settings),
        seed=seed_for(context.settings.seed, "structure search", formula),
        calculations=context.layout.calculation("").parent,
    )


def search(*, path: Path, log: Path, of: Search) -> None:
    """Relax random crystals one after another; the file is a table of the runs.

    Every relaxation is kept under the name that it would have as a candidate, so that a search that was killed goes on
    with the crystal it was at.
    """
    runs: list[dict[str, object]] = []
    energies: list[float] = []
    for number, crystal, calculation_path in of.starts():
        if of.rule.is_over(energies):
            break
        if not calculation_path.exists():
            work.calculate(path=calculation_path, crystal=crystal, settings=of.oracle)
        calculation = read_calculation(calculation_path)
        runs.append(_run(number, calculation, calculation_path))
        if calculation.status == Status.CONVERGED and calculation.energy_per_atom is not None:
            energies.append(calculation.energy_per_atom)
        log.write_text(f"{of.formula}: {len(runs)} of {of.rule.n_starts} relaxed, {len(energies)} converged\n")
    _write_runs(path, runs)


def _record_loss(of: Search, reason: str) -> None:
    """The crystal at which a search took its process down too often has failed; the search goes on behind it."""
    for _, crystal, calculation_path in of.starts():
        if not calculation_path.exists():
            write_calculation(calculation_path, failed(crystal, reason, identity=make_oracle(of.oracle).identity))
            return
    raise WorkFailedError(f"the search for {of.formula} is lost with all its crystals calculated: {reason}")


def _write_runs(path: Path, runs: Sequence[dict[str, object]]) -> None:
    replace_file(path, lambda temporary: pq.write_table(pa.Table.from_pylist(list(runs), _RUNS), temporary))


_RUNS = pa.schema(
    [
        ("number", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("energy_per_atom", pa.float64()),
        ("n_steps", pa.int64()),
        ("seconds", pa.float64()),
        ("calculation", pa.string()),
    ]
)


def _run(number: int, calculation: Calculation, path: Path) -> dict[str, object]:
    return {
        "number": number,
        "status": calculation.status.value,
        "reason": calculation.reason,
        "energy_per_atom": calculation.energy_per_atom,
        "n_steps": calculation.n_steps,
        "seconds": calculation.seconds,
        "calculation": path.name,
    }


def _events(
    context: Context, number: int, candidate_id: str, formula: str, path: Path
) -> Iterator[Searched | Calculated]:
    runs = pq.read_table(path).to_pylist()
    converged = [run for run in runs if run["status"] == Status.CONVERGED.value and run["energy_per_atom"] is not None]
    best = min(converged, key=lambda run: (run["energy_per_atom"], run["number"])) if converged else runs[0]
    yield Calculated(
        round=number,
        crystal_id=candidate_id,
        reduced_formula=formula,
        status=best["status"],
        reason=best["reason"],
        energy_per_atom=best["energy_per_atom"],
        n_steps=best["n_steps"],
        seconds=sum(run["seconds"] for run in runs),
        path=context.layout.relative(context.layout.calculation(Path(best["calculation"]).stem)),
    )
    energies = np.array([run["energy_per_atom"] for run in converged])
    lowest = energies <= energies.min() + context.settings.compositions.same_energy if converged else np.array([])
    yield Searched(
        round=number,
        candidate_id=candidate_id,
        reduced_formula=formula,
        n_starts=len(runs),
        n_completed=len(converged),
        n_lowest=int(lowest.sum()),
        seconds=sum(run["seconds"] for run in runs),
        path=context.layout.relative(path),
    )
