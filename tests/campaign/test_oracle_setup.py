"""An oracle that cannot work stops a campaign; no crystal is recorded as a failure for it."""

from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from opengnome.campaign import CampaignSettings, Progress
from opengnome.campaign.actions import Calculate
from opengnome.campaign.alignment import no_alignment
from opengnome.campaign.context import Context
from opengnome.campaign.events import Calculated
from opengnome.campaign.knowledge import Knowledge
from opengnome.campaign.perform import perform
from opengnome.campaign.preparation import start
from opengnome.campaign.state import CampaignState
from opengnome.crystals import CrystalTable
from opengnome.crystals.io import write_table
from opengnome.datasets import KnownSet, load_known_set
from opengnome.errors import OracleSetupError
from opengnome.oracles import OracleSettings, Status, make_oracle, read_calculation
from report.synthetic_campaign import grid_crystal

FORMULAS = {"first": "NaCl", "lead": "PbO", "last": "K2O"}


def one_thread() -> Executor:
    return ThreadPoolExecutor(1)


def no_workers() -> Executor:
    raise AssertionError("nothing is to be computed")


def context_of(root: Path, settings: dict[str, object], *, make_executor: object = no_workers) -> Context:
    validated = CampaignSettings.model_validate(settings)
    return Context(root, validated, make_executor=make_executor, progress=Progress(quiet=True))  # type: ignore[arg-type]


def starting(root: Path, formulas: list[str], **settings: object) -> Context:
    """A campaign of the CHGNet oracle on a known set of these formulas."""
    context = context_of(root, settings)
    table = CrystalTable.from_crystals([grid_crystal(f) for f in formulas], [f"known-{f}" for f in formulas])
    known = KnownSet(table, np.full(len(formulas), -1.0), "total", "chgnet-0.3.0", "made up")
    context.knowledge = Knowledge(root, known, context.settings)
    return context


def test_elements_that_the_oracle_lacks_are_told_before_the_start(tmp_path: Path) -> None:
    context = starting(tmp_path, ["Na", "Po", "Ra", "Cl", "NaCl"], generation={"excluded_elements": []})
    with pytest.raises(OracleSetupError, match=r"CHGNet was not trained on Po, Ra; .*known\.elements"):
        start(context)
    assert not context.layout.references.exists()


def test_elements_that_no_candidate_has_may_lack_it(tmp_path: Path) -> None:
    context = starting(tmp_path, ["Na", "Po", "Cl", "NaCl"], generation={"allowed_elements": ["Na", "Cl"]})
    assert start(context).reference_ids == ()


def test_reference_crystals_count_too(tmp_path: Path) -> None:
    """Strained crystals are drawn from the whole known set."""
    context = starting(
        tmp_path,
        ["Na", "Po", "Cl", "NaPo"],
        generation={"allowed_elements": ["Na", "Cl"]},
        training_set={"strained_crystals": 4},
    )
    with pytest.raises(OracleSetupError, match="CHGNet was not trained on Po"):
        start(context)


def test_chgnet_knows_all_elements_of_the_embedded_known_set() -> None:
    make_oracle(OracleSettings()).check_elements(load_known_set(CampaignSettings().known).elements)


def calculate(root: Path, *, make_executor: object = one_thread) -> tuple[list[Calculated], OracleSetupError | None]:
    """The events of a stage, and what stopped it."""
    options = {"filler": str(root / "filler"), "log": str(root / "log")}
    oracle = {"name": "ase", "calculator": "full_disk_calculator:FullDisk", "calculator_options": options}
    context = context_of(root, {"oracle": oracle}, make_executor=make_executor)
    crystals = [grid_crystal(formula) for formula in FORMULAS.values()]
    write_table(context.layout.chosen(1), CrystalTable.from_crystals(crystals, list(FORMULAS)))
    events = []
    try:
        for event in perform(
            context, CampaignState(alignment=no_alignment()), [Calculate(1, identifier) for identifier in FORMULAS]
        ):
            assert isinstance(event, Calculated)
            events.append(event)
    except OracleSetupError as error:
        return events, error
    return events, None


def test_a_full_disk_stops_the_campaign_and_nothing_is_recorded_as_failed(tmp_path: Path) -> None:
    (tmp_path / "filler").touch()
    before, stopped = calculate(tmp_path)
    assert "No space left on device: 'scratch.dat'; make room" in str(stopped)
    assert {event.crystal_id for event in before} <= {"first", "last"}
    assert all(event.status == Status.CONVERGED for event in before)
    (tmp_path / "filler").unlink()
    after, stopped = calculate(tmp_path)
    assert stopped is None
    assert {event.crystal_id: event.status for event in after} == dict.fromkeys(FORMULAS, "converged")
    assert all(read_calculation(tmp_path / event.path).energy_per_atom == pytest.approx(-1.0) for event in after)
    evaluated = (tmp_path / "log").read_text().split()
    assert len(evaluated) == len(set(evaluated)) == 3  # what was calculated before the disk was full is kept
