"""What workers do. Each function is a pure function of its arguments and leaves one file."""

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from opengnome.campaign.hull_file import read_hull
from opengnome.campaign.judging import judged
from opengnome.campaign.limits import forget_hang, hang_note, killed_when_hung
from opengnome.campaign.settings import ScreeningSettings
from opengnome.campaign.shards import write_shard
from opengnome.crystals import Composition, Crystal, digest
from opengnome.crystals.io import read_table
from opengnome.crystals.replacement import make_folder
from opengnome.errors import OpenGnomeError, OracleSetupError, WorkFailedError
from opengnome.generation import GenerationResult, GenerationSettings, generate
from opengnome.graphs import cached_store
from opengnome.hull import Hull
from opengnome.models import (
    AnyModelSettings,
    CompositionalSettings,
    Ensemble,
    TrainingSettings,
    train_compositional_member,
    train_member,
)
from opengnome.models.processes import Processes
from opengnome.oracles import Oracle, OracleSettings, make_oracle, write_calculation
from opengnome.oracles.relaxation import failed
from opengnome.oracles.settings import LEVELS_OF_FILES


def calculate(*, path: Path, crystal: Crystal, settings: OracleSettings) -> None:
    """Relax one crystal; the file is its `Calculation`, also when the relaxation failed.

    One that hung before, here or on another worker, is not tried again: that is its failure.
    """
    _one_thread()
    oracle = _oracle(settings.model_dump_json())
    if hung := hang_note(path):
        write_calculation(path, failed(crystal, hung, identity=oracle.identity))
        forget_hang(path)
        return
    with killed_when_hung(path, settings.relaxation.timeout_s):
        calculation = oracle.relax(crystal)
    write_calculation(path, calculation)


def calculation_key(crystal: Crystal, settings: OracleSettings) -> str:
    """Name of a calculation (32 hex characters): the digests of its crystal and of the oracle's settings, and of its
    level of theory, or the content of its table, where that does not follow from the settings.

    Raises `OracleSetupError` when it cannot be found out.
    """
    text = f"{digest(crystal)}:{settings.physics_json}"
    if settings.name in LEVELS_OF_FILES:
        text += f":{_oracle(settings.model_dump_json()).identity.level}"
    if settings.name == "recorded":
        text += f":{_oracle(settings.model_dump_json()).identity.version}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def forget_oracles() -> None:
    """Look at the files that oracles are made of (pseudopotentials, tables) again; a process keeps those it has."""
    _oracle.cache_clear()


def set_up_error(error: WorkFailedError) -> OpenGnomeError:
    """What an oracle that cannot work has said, where that is what `error` comes from; else `error`."""
    return error.__cause__ if isinstance(error.__cause__, OracleSetupError) else error


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def train(
    *,
    path: Path,
    log: Path,
    training_path: Path,
    model: AnyModelSettings,
    training: TrainingSettings,
    seed: int,
    initial: Path | None = None,
) -> None:
    """Train one network on the rows of a training file; the file is its checkpoint."""
    _one_thread()
    table = read_table(training_path)
    train_member(
        table,
        np.array(table.column("target"), dtype=float),
        held_out=np.array(table.column("held_out"), dtype=bool),
        model=model,
        training=training,
        seed=seed,
        path=path,
        progress=_line_writer(log) if Processes.current().is_first else None,
        initial=initial,
        graphs=cached_store(
            table,
            training_path.parent,
            cutoff=model.cutoff,
            max_neighbours_per_atom=model.max_neighbours_per_atom,
        ),
    )


def train_compositional(
    *,
    path: Path,
    log: Path,
    training_path: Path,
    model: CompositionalSettings,
    training: TrainingSettings,
    seed: int,
    initial: Path | None = None,
) -> None:
    """Train one compositional network on the rows of a training file; the file is its checkpoint."""
    _one_thread()
    table = pq.read_table(training_path)
    train_compositional_member(
        [Composition.from_formula(formula) for formula in table["formula"].to_pylist()],
        table["target"].to_numpy(),
        held_out=table["held_out"].to_numpy(zero_copy_only=False),
        model=model,
        training=training,
        seed=seed,
        path=path,
        progress=_line_writer(log),
        initial=initial,
    )


def screen(
    *,
    path: Path,
    parents_path: Path,
    start: int,
    stop: int,
    formulas_path: Path,
    formulas_digest: str,
    hull_path: Path,
    hull_digest: str,
    generation: GenerationSettings,
    screening: ScreeningSettings,
    ensemble_path: Path,
    ensemble_digest: str,
    seed: int,
) -> None:
    """Candidates of parents start..stop, their predicted energies and distances to the hull of the round; the file is
    a crystal table of all of them.

    A candidate that the networks cannot judge (too dense, with an atom that has no neighbour within their cutoff at one
    of the volumes, or lowest at an end of the scan) has NaN.
    """
    _one_thread()
    known = _known_formulas(formulas_path, formulas_digest)
    result = _generated(parents_path, start, stop, known, generation, seed)
    table = result.table
    prediction = _ensemble(ensemble_path, ensemble_digest).predict(
        table, volume_scales=volume_scales(screening), bfloat16=screening.bfloat16
    )
    # The energy of an atom without neighbours is worthless, and so is a minimum that the scan has not reached; the
    # lowest of a pool are such.
    unjudged = prediction.isolated | _at_an_end(prediction.volume_scale, screening)
    table = table.with_column("volume_scale", np.asarray(prediction.volume_scale, dtype=float))
    for name in ("formation_energy_per_atom", "spread", "std"):
        values = np.asarray(getattr(prediction, name), dtype=float)
        table = table.with_column(name, np.where(unjudged, np.nan, values))
    table = judged(table, _hull(hull_path, hull_digest))
    write_shard(path, table, result, hull_digest=hull_digest, ensemble_digest=ensemble_digest)


def generate_shard(
    *,
    path: Path,
    parents_path: Path,
    start: int,
    stop: int,
    formulas_path: Path,
    formulas_digest: str,
    generation: GenerationSettings,
    seed: int,
) -> None:
    """Candidates of parents start..stop without predictions; the file is a crystal table of all of them."""
    known = _known_formulas(formulas_path, formulas_digest)
    result = _generated(parents_path, start, stop, known, generation, seed)
    write_shard(path, result.table, result)


def _generated(
    parents_path: Path, start: int, stop: int, known: frozenset[str], generation: GenerationSettings, seed: int
) -> GenerationResult:
    parents = read_table(parents_path).slice(start, stop)
    return generate(parents, generation, known_formulas=known, seed=seed)


def volume_scales(settings: ScreeningSettings) -> tuple[float, ...]:
    """Volumes of the scan relative to the generated one; the generated one alone when only one is asked for."""
    if settings.n_volume_scales == 1:
        return (1.0,)
    return tuple(
        np.linspace(settings.lowest_volume_scale, settings.highest_volume_scale, settings.n_volume_scales).tolist()
    )


def _at_an_end(volume_scale: np.ndarray, settings: ScreeningSettings) -> np.ndarray:
    """Whether the energy is lowest at an end of the scan, shape (n,)."""
    scales = volume_scales(settings)
    if not settings.minimum_inside or len(scales) < 3:
        return np.zeros(len(volume_scale), dtype=bool)
    return np.isclose(volume_scale, scales[0]) | np.isclose(volume_scale, scales[-1])


@lru_cache(maxsize=2)
def _oracle(settings_json: str) -> Oracle:
    """One engine per process: loading it costs more than a small relaxation."""
    return make_oracle(OracleSettings.model_validate_json(settings_json))


# A worker may outlive a campaign and meet the next one in the same folder: what is kept has the name of its content.


@lru_cache(maxsize=1)
def _known_formulas(path: Path, _digest: str) -> frozenset[str]:
    """The compositions of a round's known set."""
    return frozenset(path.read_text(encoding="utf-8").split())


@lru_cache(maxsize=1)
def _hull(path: Path, _digest: str) -> Hull:
    """The hull of a round."""
    return read_hull(path)


@lru_cache(maxsize=1)
def _ensemble(path: Path, _digest: str) -> Ensemble:
    return Ensemble.load(path)


def _one_thread() -> None:
    """One thread per worker: fastest with a worker per core, and bitwise repeatable."""
    import torch

    torch.set_num_threads(1)


def _line_writer(path: Path) -> Callable[[str], None]:
    make_folder(path.parent)
    path.write_text("")

    def write(line: str) -> None:
        with path.open("a") as log:
            log.write(line + os.linesep)

    return write
