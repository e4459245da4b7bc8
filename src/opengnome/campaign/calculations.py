"""The oracle at work: reference crystals before the first round, chosen candidates in each."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from opengnome.campaign import work
from opengnome.campaign.context import Context
from opengnome.campaign.events import Calculated
from opengnome.campaign.execution import Ended, Unit
from opengnome.campaign.strained import is_strained
from opengnome.crystals import Crystal
from opengnome.crystals.io import read_table
from opengnome.errors import WorkFailedError
from opengnome.oracles import Calculation, Status, make_oracle, read_calculation, write_calculation
from opengnome.oracles.relaxation import failed


def calculate(context: Context, number: int, crystal_ids: Sequence[str]) -> Iterator[Calculated]:
    """Relax the named crystals; round 0 are the reference crystals."""
    table = read_table(context.layout.references if number == 0 else context.layout.chosen(number))
    position = {identifier: i for i, identifier in enumerate(table.ids)}
    crystals = {identifier: table[position[identifier]] for identifier in crystal_ids}
    units = {i: _calculation_unit(context, crystal, strained=is_strained(i)) for i, crystal in crystals.items()}
    by_path: dict[Path, list[str]] = {}
    for identifier, unit in units.items():  # two ids may name the same crystal: one unit
        by_path.setdefault(unit.path, []).append(identifier)
    n_converged = n_strained = 0
    distinct = {unit.path: unit for unit in units.values()}

    def note() -> str:
        return f"{n_converged} converged" + (f", {n_strained} single points" if n_strained else "")

    stage = "reference calculations" if number == 0 else f"round {number}, relaxations"
    for ended in _run(context, stage, list(distinct.values()), note):
        calculation = _read_or_record_loss(context, ended, crystals[by_path[ended.unit.path][0]])
        if is_strained(by_path[ended.unit.path][0]):
            n_strained += calculation.energy is not None
        else:
            n_converged += calculation.status == Status.CONVERGED
        for identifier in by_path[ended.unit.path]:
            yield _event(context, number, identifier, crystals[identifier], calculation, ended.unit.path)


def _run(context: Context, stage: str, units: list[Unit], note: Callable[[], str]) -> Iterator[Ended]:
    """Run units; an oracle that cannot work speaks for itself, and what it stopped is not recorded as a failure."""
    try:
        yield from context.run(stage, units, note=note)
    except WorkFailedError as error:
        cause = work.set_up_error(error)
        if cause is error:
            raise
        raise cause from error


def _calculation_unit(context: Context, crystal: Crystal, *, strained: bool) -> Unit:
    oracle = context.settings.oracle
    if strained:  # at the given volume, so without a step
        oracle = oracle.model_copy(update={"relaxation": oracle.relaxation.model_copy(update={"max_steps": 0})})
    path = context.layout.calculation(work.calculation_key(crystal, oracle))
    return Unit(path, work.calculate, {"path": path, "crystal": crystal, "settings": oracle})


def _read_or_record_loss(context: Context, ended: Ended, crystal: Crystal) -> Calculation:
    if ended.lost:
        identity = make_oracle(context.settings.oracle).identity
        write_calculation(ended.unit.path, failed(crystal, ended.lost, identity=identity))
    return read_calculation(ended.unit.path)


def _event(
    context: Context, number: int, identifier: str, crystal: Crystal, calculation: Calculation, path: Path
) -> Calculated:
    return Calculated(
        round=number,
        crystal_id=identifier,
        reduced_formula=crystal.reduced_formula,
        status=calculation.status.value,
        reason=calculation.reason,
        energy_per_atom=calculation.energy_per_atom,
        n_steps=calculation.n_steps,
        seconds=calculation.seconds,
        path=context.layout.relative(path),
    )
