"""The function behind `opengnome relax`: files of crystals in, relaxations by an oracle, a row per crystal out."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from opengnome.campaign import work
from opengnome.campaign.context import run_with_progress
from opengnome.campaign.elemental_references import ElementalReferences, known_references
from opengnome.campaign.execution import Ended, Unit, local_executor
from opengnome.campaign.progress import Progress
from opengnome.campaign.reading import read_all
from opengnome.campaign.relaxed_rows import batch_elements, failure_row, relaxed_table, result_row
from opengnome.campaign.stopping import StoppedError, StopRequest, stopping
from opengnome.campaign.tables import Row, failure
from opengnome.crystals import Crystal
from opengnome.crystals.io import SUFFIXES, write_crystals
from opengnome.errors import ElementsLackDataError, OpenGnomeError, OracleSetupError, SettingsError, WorkFailedError
from opengnome.oracles import (
    Calculation,
    Oracle,
    OracleSettings,
    Status,
    make_oracle,
    read_calculation,
)

INVALID, NOT_RUN = "invalid_crystal", "not_run"
CALCULATIONS_SUFFIX = ".calculations"

Results = dict[Path, Calculation | str]
"""By file of the calculation: what is in it, without frames, or why there is none."""


def calculations_beside(output: Path | None, relaxed: Path | None = None) -> Path | None:
    """Folder of the finished calculations of a command: beside its table, else beside its relaxed crystals.

    None when neither is written: they are then not kept. Raises `SettingsError` for a table that is neither
    .csv nor .parquet, before hours are spent on it.
    """
    if output is not None and output.suffix not in (".csv", ".parquet"):
        raise SettingsError(f"{output} is neither .csv nor .parquet: tables are written as one of these")
    beside = output or relaxed
    return None if beside is None else beside.with_suffix(CALCULATIONS_SUFFIX)


def relax_rows(
    paths: Sequence[Path],
    *,
    settings: OracleSettings,
    relaxed: Path | None = None,
    references: Path | None = None,
    keep: Path | None = None,
    workers: int = 0,
    progress: Progress,
    stop: StopRequest | None = None,
) -> list[Row]:
    """Relax every crystal in `paths` on all cores; the last geometries are written to `relaxed` when given.

    Formation energies count from the lowest converged pure element of the oracle's level of theory: of this batch,
    of the embedded set where it is of that level, and of the table `references`. Full calculations are kept
    in the folder `keep` when given, and a finished one is never repeated.

    Stopped by a signal (`stopping.STOP_SIGNALS`, noted in `stop`) or by an oracle that no longer works, the crystals
    that are not finished have the status ``not_run``; the others have their rows and are written as usual.
    Relaxed crystals that cannot be written cost no row: `warning` of each row says why. Raises `OracleSetupError` or
    `SettingsError`, before anything is computed, when the oracle cannot work or the references are not of its level.
    """
    work.forget_oracles()
    oracle = make_oracle(settings)
    known = known_references(oracle.identity, references)
    read = read_all(paths)
    rows = {r.id: failure(r.id, INVALID, r.reason) for r in read if r.crystal is None}
    if relaxed is not None:
        _check_can_hold(relaxed, len(read))
    crystals, refused = _possible({r.id: r.crystal for r in read if r.crystal is not None}, oracle)
    rows |= refused
    progress.message(f"{len(crystals)} crystals, {oracle.identity.code}, level {oracle.identity.level}")
    with _calculations_folder(keep) as folder:
        units = {identifier: _unit(folder, crystal, settings) for identifier, crystal in crystals.items()}
        run = partial(run_with_progress, make_executor=lambda: local_executor(workers), progress=progress)
        results, stopped = _calculate(units.values(), run, stop or StopRequest())
    if stopped:
        progress.message(_to_be_done(stopped, keep))
    ended = [(i, result) for i in crystals if isinstance(result := results.get(units[i].path), Calculation)]
    elements = known.with_entries(batch_elements(ended))
    rows |= {i: result_row(i, calculation, elements) for i, calculation in ended}
    for identifier, crystal in crystals.items():
        if identifier not in rows:
            lost = results.get(units[identifier].path)
            status, reason = (Status.FAILED.value, str(lost)) if lost else (NOT_RUN, _to_be_done(stopped, keep))
            rows[identifier] = failure_row(identifier, crystal, status=status, reason=reason)
    if relaxed is not None and (problem := _write_relaxed(relaxed, ended, elements, progress)):
        for identifier, _ in ended:
            rows[identifier]["warning"] = "; ".join(filter(None, (rows[identifier]["warning"], problem)))
    return [rows[r.id] for r in read]


def _check_can_hold(relaxed: Path, n_crystals: int) -> None:
    """Raise `SettingsError` for a file that crystals cannot be written to, before hours are spent on them."""
    suffix = relaxed.suffix.lower()
    if suffix and suffix not in SUFFIXES:
        raise SettingsError(
            f"{relaxed} is of no known format; relaxed crystals are written as .parquet, .extxyz, or a folder of CIFs"
        )
    if n_crystals > 1 and SUFFIXES.get(suffix) in ("cif", "poscar"):
        raise SettingsError(
            f"{relaxed} holds one crystal and there are {n_crystals}; write .parquet, .extxyz, or a folder of CIFs"
        )


def _write_relaxed(
    path: Path, ended: Sequence[tuple[str, Calculation]], elements: ElementalReferences, progress: Progress
) -> str:
    """Write the last geometries; why that was not possible, else empty.

    A Parquet table has those of all crystals, with a status; elsewhere only converged ones are, since there is no place
    to tell them from the others.
    """
    kept = ended
    if SUFFIXES.get(path.suffix.lower()) != "parquet":
        kept = [(i, calculation) for i, calculation in ended if calculation.status is Status.CONVERGED]
        n_others = sum(calculation.crystal is not None for _, calculation in ended) - len(kept)
        if n_others:
            progress.message(f"{n_others} crystals that did not converge are left out of {path}; a .parquet has them")
    table = relaxed_table(kept, elements)
    try:
        if table is not None:
            write_crystals(path, table)
        elif path.is_file():
            path.unlink()  # of an earlier run: it would pass for the answer of this one
            progress.message(f"there is no relaxed crystal; {path} of an earlier run is removed")
    except (OpenGnomeError, OSError) as error:
        problem = f"not written to {path}: {error}"
        progress.message(f"relaxed crystals are {problem}")
        return problem
    return ""


def _possible(crystals: Mapping[str, Crystal], oracle: Oracle) -> tuple[dict[str, Crystal], dict[str, Row]]:
    """Crystals of elements that the oracle has what it needs for, and the rows of the others.

    Raises `OracleSetupError` when that cannot be told: a damaged library is no crystal's fault.
    """

    @cache
    def lacking(elements: frozenset[int]) -> str:
        try:
            oracle.check_elements(sorted(elements))
        except ElementsLackDataError as error:
            return str(error)
        return ""

    reasons = {i: lacking(frozenset(crystal.atomic_numbers.tolist())) for i, crystal in crystals.items()}
    return (
        {i: crystal for i, crystal in crystals.items() if not reasons[i]},
        {
            i: failure_row(i, crystals[i], status=Status.FAILED.value, reason=reason)
            for i, reason in reasons.items()
            if reason
        },
    )


@contextmanager
def _calculations_folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="opengnome-relax-") as folder:
        yield Path(folder)


def _unit(folder: Path, crystal: Crystal, settings: OracleSettings) -> Unit:
    path = folder / f"{work.calculation_key(crystal, settings)}.parquet"
    return Unit(path, work.calculate, {"path": path, "crystal": crystal, "settings": settings})


def _calculate(units: Iterable[Unit], run: Callable[..., Iterator[Ended]], request: StopRequest) -> tuple[Results, str]:
    """Results of all units, or those so far and what ended the run."""
    distinct = {unit.path: unit for unit in units}  # the same crystal twice is one calculation
    results: Results = {}
    n_converged, stopped = 0, ""

    def note() -> str:
        return f"{n_converged} converged"

    try:
        with stopping(request) as stop:
            for ended in run(list(distinct.values()), stage="relaxing", stop=stop, note=note):
                results[ended.unit.path] = result = ended.lost or _read(ended.unit.path)
                n_converged += isinstance(result, Calculation) and result.status is Status.CONVERGED
    except StoppedError:
        stopped = f"stopped by {request.by}"
    except KeyboardInterrupt:
        stopped = "interrupted"
    except OracleSetupError as error:
        stopped = str(error)
    except WorkFailedError as error:
        stopped = str(work.set_up_error(error))
    for path in distinct:  # finished, and not told before the end
        if path not in results and path.exists():
            results[path] = _read(path)
    return results, stopped


def _read(path: Path) -> Calculation | str:
    """A calculation without its frames, which fill the memory of a large batch; the reason where it is damaged."""
    try:
        return replace(read_calculation(path), frames=None)
    except OpenGnomeError as error:
        return str(error)


def _to_be_done(stopped: str, keep: Path | None) -> str:
    remedy = "the same command goes on" if keep is not None else "with -o FILE what is finished is kept"
    return f"{stopped}; {remedy}"
