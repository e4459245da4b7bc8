"""An oracle that looks its answers up in a table: campaigns against known energies, in seconds."""

import hashlib
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.crystals.crystal import Crystal, digest
from opengnome.crystals.table import CrystalTable
from opengnome.errors import InvalidCrystalError, OracleSetupError
from opengnome.oracles.oracle import Calculation, OracleIdentity, Status
from opengnome.oracles.relaxation import failed
from opengnome.oracles.settings import OracleSettings


class RecordedOracle:
    """Answers with the recorded energy of a crystal; there are no forces, no stress and no frames.

    A crystal is looked up by `crystals.digest`, so it must be described as in the table. With match =
    "formula", any other crystal is answered with the lowest entry of its reduced formula, and with that
    entry's crystal as the relaxed one (which may have another number of atoms). Whatever is not found is
    FAILED with "no recorded answer". Of a table of several levels of theory the rows of `level` answer.
    """

    def __init__(self, settings: OracleSettings) -> None:
        if settings.table is None:
            raise OracleSetupError("the recorded oracle needs table = the path of a Parquet file")
        self.settings = settings
        self.path: Path = settings.table
        levels = self._levels()
        if len(levels) > 1 and settings.level not in levels:
            raise OracleSetupError(
                f"the recorded table {self.path} has energies of the levels {levels}, which cannot be compared; choose "
                "one with level, or split the table"
            )
        self.identity = OracleIdentity(
            name="recorded",
            code=self.path.name,
            version=hashlib.sha256(self.path.read_bytes()).hexdigest()[:16],
            level=settings.level or (levels[0] if len(levels) == 1 else f"recorded:{self.path.name}"),
            settings_digest=settings.relaxation.digest,
        )

    def check_elements(self, atomic_numbers: Iterable[int]) -> None:
        """Nothing: a table lacks single crystals, and each that it lacks is told."""

    def relax(self, crystal: Crystal) -> Calculation:
        """The recorded answer for one crystal."""
        start = time.monotonic()
        row = self._rows_by_digest.get(digest(crystal))
        if row is None and self.settings.match == "formula":
            row = self._rows_by_formula.get(crystal.reduced_formula)
        if row is None:
            reason = f"no recorded answer for {crystal.reduced_formula} in {self.path.name}"
            return failed(crystal, reason, identity=self.identity, seconds=time.monotonic() - start)
        recorded = self._table[row]
        return Calculation(
            status=Status.CONVERGED,
            reason="",
            initial=crystal,
            crystal=recorded,
            energy=float(self._energies[row]) * recorded.n_atoms,
            forces=None,
            stress=None,
            frames=None,
            n_steps=0,
            fmax=None,
            seconds=time.monotonic() - start,
            oracle=self.identity,
        )

    def __getstate__(self) -> dict[str, object]:
        """Without the table, which a worker reads itself."""
        return {name: self.__dict__[name] for name in ("settings", "path", "identity")}

    @cached_property
    def _table(self) -> CrystalTable:
        table = CrystalTable.from_arrow(self._read())
        energies = table.arrow[self.settings.energy_column].to_numpy(zero_copy_only=False)
        answers = np.isfinite(energies.astype(float))
        if len(self._levels()) > 1:
            answers &= np.array([level == self.identity.level for level in table.column("level")])
        return table.filter(answers)

    @cached_property
    def _energies(self) -> np.ndarray:
        """eV/atom by row."""
        return np.asarray(self._table.column(self.settings.energy_column), dtype=float)

    @cached_property
    def _rows_by_digest(self) -> dict[str, int]:
        return {digest(self._table[row]): row for row in self._highest_first}

    @cached_property
    def _rows_by_formula(self) -> dict[str, int]:
        formulas = self._table.reduced_formulas
        return {formulas[row]: row for row in self._highest_first}

    @cached_property
    def _highest_first(self) -> list[int]:
        """Rows by falling energy: in a dictionary made in this order the lowest of equal keys stays."""
        return np.argsort(-self._energies, kind="stable").tolist()

    def _read(self) -> pa.Table:
        try:
            return pq.ParquetFile(self.path).read()
        except (OSError, pa.ArrowException) as error:
            raise OracleSetupError(f"the recorded table {self.path} cannot be read: {error}") from error

    def _levels(self) -> list[str]:
        """Check the table; the distinct values of its column `level`, if it has one."""
        arrow = self._read()
        try:
            CrystalTable.from_arrow(arrow)
        except InvalidCrystalError as error:
            raise OracleSetupError(f"the recorded table {self.path}: {error}") from error
        if self.settings.energy_column not in arrow.column_names:
            raise OracleSetupError(
                f"the recorded table {self.path} has no column {self.settings.energy_column!r} "
                f"(its columns: {', '.join(arrow.column_names)}); set energy_column"
            )
        return arrow["level"].unique().to_pylist() if "level" in arrow.column_names else []
