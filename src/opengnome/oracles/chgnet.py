"""The embedded oracle: CHGNet 0.3.0, a universal potential with its weights in the wheel.

Deng et al., Nat Mach Intell 5, 1031 (2023), doi:10.1038/s42256-023-00716-3. The network is CHGNet's own;
energy, forces and stress are taken here with one backward pass for positions and strain together and no
graph kept for training, which halves the cost of CHGNet's own calculator (`benchmarks/bench_oracle.py`)
and agrees with it to 1e-4 eV/Angstrom (`tests/oracles/test_chgnet_oracle.py`).
"""

import importlib.metadata
import importlib.util
import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from typing import Any

import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.interop import from_ase, to_pymatgen
from opengnome.errors import ElementsLackDataError, OracleSetupError
from opengnome.oracles.oracle import Calculation, OracleIdentity
from opengnome.oracles.relaxation import failed, relax_with_calculator
from opengnome.oracles.settings import RelaxationSettings

MODEL_NAME = "0.3.0"
"""The weights, trained on PBE and PBE+U frames of the Materials Project."""

KNOWN_ELEMENTS: frozenset[int] = frozenset(range(1, 95)) - frozenset(range(84, 89))
"""Atomic numbers in CHGNet's training set: up to Pu without Po, At, Rn, Fr, Ra. For the others the network
answers with untrained numbers, so they are refused."""


class ChgnetOracle:
    """Relaxes crystals with CHGNet on one thread: the same input gives the same bits in every process."""

    def __init__(self, settings: RelaxationSettings | None = None) -> None:
        self.settings = settings or RelaxationSettings()
        if importlib.util.find_spec("chgnet") is None:
            raise OracleSetupError("the chgnet oracle needs the package chgnet: pip install chgnet")
        self.identity = OracleIdentity(
            name="chgnet",
            code="chgnet",
            version=importlib.metadata.version("chgnet"),
            level=f"chgnet-{MODEL_NAME}",
            settings_digest=self.settings.digest,
        )

    def check_elements(self, atomic_numbers: Iterable[int]) -> None:
        """Raises `ElementsLackDataError` naming every element CHGNet was not trained on."""
        untrained = _untrained(atomic_numbers)
        if untrained:
            raise ElementsLackDataError(
                f"CHGNet was not trained on {untrained}; leave these elements out of the chemistry"
            )

    def relax(self, crystal: Crystal) -> Calculation:
        """Relax one crystal; see `relaxation.relax_with_calculator`."""
        untrained = _untrained(crystal.atomic_numbers.tolist())
        if untrained:
            return failed(crystal, f"CHGNet was not trained on {untrained}", identity=self.identity)
        load_model()  # a broken installation is an error of the set-up, not of this crystal
        with one_thread():
            return relax_with_calculator(crystal, make_calculator, settings=self.settings, identity=self.identity)


def _untrained(atomic_numbers: Iterable[int]) -> str:
    """Symbols of those of the elements that are not in `KNOWN_ELEMENTS`; empty when all are."""
    return ", ".join(SYMBOLS[z] for z in sorted(set(atomic_numbers) - KNOWN_ELEMENTS))


@lru_cache(maxsize=1)
def load_model() -> Any:
    """CHGNet on the CPU, loaded once per process.

    Raises `OracleSetupError` when the package or its weights cannot be loaded.
    """
    try:
        # chgnet prints its number of parameters whatever verbose says, and importing its training side, which
        # is not used here, warns about deprecated dependencies
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            from chgnet.model.model import CHGNet

            model = CHGNet.load(model_name=MODEL_NAME, use_device="cpu", verbose=False)
    except (ImportError, OSError, RuntimeError) as error:
        raise OracleSetupError(f"CHGNet cannot be loaded: {error}; reinstall it: pip install chgnet") from error
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: summation order, hence every bit, is then fixed; crystals are parallel instead."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def evaluate(crystal: Crystal) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy (eV/cell), forces (n_atoms, 3) in eV/Angstrom, stress (3, 3) in eV/Angstrom^3 of one geometry.

    Raises `ValueError` when an atom has no neighbour within 6 Angstrom.
    """
    import torch
    from chgnet.model.model import BatchedGraph

    model = load_model()
    graph = _graph(model, crystal)
    with warnings.catch_warnings():
        # torch says once per process that from_graphs makes numbers of differentiable volumes, not used here
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad", UserWarning)
        batch = BatchedGraph.from_graphs(
            [graph], model.bond_basis_expansion, model.angle_basis_expansion, compute_stress=True
        )
    # without compute_force CHGNet leaves the energy differentiable and takes no gradient itself
    energy_per_atom = model._compute(batch)["e"]
    positions, strain = torch.autograd.grad(
        energy_per_atom.sum() * crystal.n_atoms, (batch.atom_positions[0], batch.strains[0])
    )
    reference = model.composition_model([graph])
    energy = float((energy_per_atom + reference).detach().item()) * crystal.n_atoms
    forces = -positions.numpy().astype(np.float64)
    stress = strain.numpy().astype(np.float64) / crystal.volume
    return energy, forces, (stress + stress.T) / 2


def make_calculator() -> Any:
    """An ASE calculator of `evaluate`."""
    from ase.calculators.calculator import Calculator, all_changes
    from ase.stress import full_3x3_to_voigt_6_stress

    class _ChgnetCalculator(Calculator):
        implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 (ASE's own declaration)

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties, system_changes)
            energy, forces, stress = evaluate(from_ase(atoms))
            self.results = {
                "energy": energy,
                "free_energy": energy,
                "forces": forces,
                "stress": full_3x3_to_voigt_6_stress(stress),
            }

    return _ChgnetCalculator()


def _graph(model: Any, crystal: Crystal) -> Any:
    """CHGNet's graph of a crystal.

    As `CrystalGraphConverter.forward`, which cannot be called here because it writes a file into the
    working directory when a graph cannot be made.
    """
    import torch
    from chgnet.graph.crystalgraph import CrystalGraph

    converter = model.graph_converter
    centers, neighbors, images, distances = _neighbors(crystal, float(converter.atom_graph_cutoff))
    n_isolated = crystal.n_atoms - len(np.unique(centers))
    if n_isolated:
        raise ValueError(f"{n_isolated} atoms have no neighbour within {converter.atom_graph_cutoff} A")
    graph = converter.create_graph(crystal.n_atoms, centers, neighbors, images, distances)
    atom_graph, directed2undirected = graph.adjacency_list()
    bond_graph, undirected2directed = graph.line_graph_adjacency_list(cutoff=converter.bond_graph_cutoff)
    return CrystalGraph(
        atomic_number=torch.tensor(crystal.atomic_numbers, dtype=torch.int32),
        atom_frac_coord=torch.tensor(crystal.frac_coords, dtype=torch.float32, requires_grad=True),
        atom_graph=torch.tensor(atom_graph, dtype=torch.int32),
        atom_graph_cutoff=converter.atom_graph_cutoff,
        neighbor_image=torch.tensor(images, dtype=torch.float32),
        directed2undirected=torch.tensor(directed2undirected, dtype=torch.int32),
        undirected2directed=torch.tensor(undirected2directed, dtype=torch.int32),
        bond_graph=torch.tensor(bond_graph, dtype=torch.int32),
        bond_graph_cutoff=converter.bond_graph_cutoff,
        lattice=torch.tensor(crystal.lattice, dtype=torch.float32, requires_grad=True),
    )


def _neighbors(crystal: Crystal, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Center, neighbour, image and distance of every directed pair within the cutoff, in CHGNet's order."""
    return to_pymatgen(crystal).get_neighbor_list(r=cutoff, numerical_tol=1e-8)
