"""The models of a round: training rows, members, the calibrated ensemble."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from opengnome.campaign import work
from opengnome.campaign.context import Context
from opengnome.campaign.events import EnsembleAssembled, MemberTrained, RoundOpened
from opengnome.campaign.execution import Ended, Unit
from opengnome.campaign.limits import OUT_OF_MEMORY
from opengnome.campaign.seeds import seed_for
from opengnome.campaign.state import CampaignState
from opengnome.campaign.training_set import training_table
from opengnome.crystals import CrystalTable
from opengnome.crystals.io import read_table, write_table
from opengnome.crystals.replacement import replace_file
from opengnome.errors import CampaignError, SettingsError, WorkFailedError
from opengnome.models import (
    SHIPPED,
    AnyModelSettings,
    Ensemble,
    TrainingSettings,
    assemble_ensemble,
    shipped_ensemble,
)
from opengnome.models.checkpoint import load_checkpoint
from opengnome.models.manifest import member_paths


def open_round(context: Context, state: CampaignState, number: int) -> RoundOpened:
    """Write parents, known formulas and training rows of a round."""
    parents = context.knowledge.parents(state, number)
    if not len(parents):
        settings = context.settings.parents
        raise CampaignError(
            f"no known crystal has at most {settings.max_atoms} atoms and lies within "
            f"{settings.max_energy_above_hull} eV/atom of the hull; raise parents.max_atoms or "
            "parents.max_energy_above_hull"
        )
    training = training_table(context.knowledge, state, number)
    formulas = context.knowledge.formulas(state, number)
    write_table(context.layout.parents(number), parents)
    write_table(context.layout.training(number), training)
    replace_file(
        context.layout.formulas(number), lambda path: path.write_text("\n".join(formulas) + "\n", encoding="utf-8")
    )
    context.progress.message(
        f"round {number}: {len(parents)} parents, {len(formulas)} known compositions, {len(training)} training crystals"
    )
    return RoundOpened(
        round=number,
        n_parents=len(parents),
        n_shards=-(-len(parents) // context.settings.parents.parents_per_shard),
        n_training=len(training),
        hull_digest=context.knowledge.hull(state, before_round=number).digest,
    )


def train(context: Context, number: int, members: Sequence[int]) -> Iterator[MemberTrained]:
    """Train the named members."""
    units = {context.layout.member(number, m): (m, _unit(context, number, m)) for m in members}
    for ended in context.run(f"round {number}, training", [unit for _, unit in units.values()]):
        refuse_lost(ended)
        yield MemberTrained(
            round=number,
            member=units[ended.unit.path][0],
            path=context.layout.relative(ended.unit.path),
            metrics=_member_metrics(ended.unit.path),
        )


def _unit(context: Context, number: int, member: int) -> Unit:
    return member_unit(
        context.layout.member(number, member),
        context.layout.training(number),
        model=context.settings.model,
        training=context.settings.training,
        seed=seed_for(context.settings.seed, "member", number, member),
        initial=initial_member(context.settings.ensemble.initial, context.settings.model, member),
    )


def initial_member(initial: str, model: AnyModelSettings, member: int) -> Path | None:
    """Checkpoint from which a member starts: the shipped members in turn; None for random weights.

    Raises `SettingsError` when the shipped network has other settings than `model`.
    """
    if initial != SHIPPED:
        return None
    paths = member_paths(shipped_ensemble())
    path = paths[member % len(paths)]
    shipped = load_checkpoint(path)[0].settings
    if shipped != model:
        raise SettingsError(
            f"the shipped networks have the settings {shipped!r}, asked for is {model!r}; leave [model] out, or set "
            'ensemble.initial = "none" to train from random weights'
        )
    return path


def member_unit(
    path: Path,
    training_path: Path,
    *,
    model: AnyModelSettings,
    training: TrainingSettings,
    seed: int,
    initial: Path | None = None,
) -> Unit:
    """The work of training one network on the rows of a training file."""
    log = path.with_suffix(".log")
    arguments = {
        "path": path,
        "log": log,
        "training_path": training_path,
        "model": model,
        "training": training,
        "seed": seed,
        "initial": initial,
    }
    return Unit(path, work.train, arguments, log=log)


def ensemble_of(member_paths: Sequence[Path], directory: Path, table: CrystalTable) -> Ensemble:
    """Calibrate trained members on the held-out rows of a training table (columns `target`, `held_out`)."""
    return assemble_ensemble(
        member_paths,
        directory,
        table=table,
        targets=table.arrow["target"].to_numpy(),
        held_out=table.arrow["held_out"].to_numpy(zero_copy_only=False),
    )


def assemble(context: Context, state: CampaignState, number: int) -> EnsembleAssembled:
    """Calibrate the trained members together."""
    members = state.round(number).members
    paths = [context.layout.root / members[m].path for m in sorted(members)]
    ensemble = ensemble_of(paths, context.layout.ensemble(number), read_table(context.layout.training(number)))
    metrics = {k: float(v) for k, v in ensemble.metrics.items() if isinstance(v, int | float)}
    context.progress.message(f"round {number}: ensemble ready, held-out MAE {metrics['mae']:.3f} eV/atom")
    return EnsembleAssembled(
        round=number,
        path=context.layout.relative(context.layout.ensemble(number)),
        digest=ensemble.digest,
        metrics=metrics,
    )


def refuse_lost(ended: Ended) -> None:
    """Raise `WorkFailedError` for a unit that is lost: the campaign cannot go on without it."""
    if ended.lost:
        raise WorkFailedError(f"{ended.unit.path}: {ended.lost}. {_remedy(ended.lost)}; the same command goes on")


def _remedy(lost: str) -> str:
    """What to do about a unit that is lost, by why it is."""
    if lost.startswith(OUT_OF_MEMORY) or "SIGKILL" in lost:
        return "Use fewer workers, smaller batches, or a machine with more memory"
    if "block" in lost:
        return "Ask for a longer walltime, or raise execution.interruptions"
    return "Its log, if it wrote one, is beside it"


def _member_metrics(path: Path) -> dict[str, float]:
    metrics = json.loads(path.with_suffix(".json").read_text()).get("metrics", {})
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
