"""The candidates of a round: generated from shards of parents, energies predicted."""

from collections.abc import Iterator, Sequence

from opengnome.campaign import work
from opengnome.campaign.context import Context
from opengnome.campaign.events import ShardScreened
from opengnome.campaign.execution import Unit
from opengnome.campaign.hull_file import write_hull
from opengnome.campaign.isolation import run_shards
from opengnome.campaign.seeds import seed_for
from opengnome.campaign.shards import is_of_another_ensemble, shard_counts
from opengnome.campaign.state import CampaignState


def screen(context: Context, state: CampaignState, number: int, shards: Sequence[int]) -> Iterator[ShardScreened]:
    """Generate and judge the candidates of the named shards."""
    hull = context.knowledge.hull(state, before_round=number)
    write_hull(context.layout.hull(number), hull)
    current = state.round(number)
    if current.opened is None or current.ensemble is None:
        raise ValueError(f"round {number} has no ensemble: plan() orders AssembleEnsemble before any screening")
    n_parents = current.opened.n_parents
    formulas_digest = work.file_digest(context.layout.formulas(number))
    size = context.settings.parents.parents_per_shard
    numbers = {context.layout.shard(number, shard): shard for shard in shards}
    units = [
        Unit(
            path,
            work.screen,
            {
                "path": path,
                "parents_path": context.layout.parents(number),
                "start": shard * size,
                "stop": min((shard + 1) * size, n_parents),
                "formulas_path": context.layout.formulas(number),
                "formulas_digest": formulas_digest,
                "hull_path": context.layout.hull(number),
                "hull_digest": hull.digest,
                "generation": context.generation,
                "screening": context.settings.screening,
                "ensemble_path": context.layout.ensemble(number),
                "ensemble_digest": current.ensemble.digest,
                "seed": seed_for(context.settings.seed, "generation", number),
            },
        )
        for path, shard in numbers.items()
    ]
    for path in numbers:
        if path.exists() and is_of_another_ensemble(path, current.ensemble.digest):
            path.unlink()  # no event vouches for it, and the energies of two ensembles do not compare
    paths = run_shards(
        units,
        context.run,
        stage=f"round {number}, screening shards",
        parents_path=context.layout.parents(number),
        tell=context.progress.message,
    )
    for path in paths:
        yield ShardScreened(
            round=number, shard=numbers[path], path=context.layout.relative(path), counts=shard_counts(path)
        )
