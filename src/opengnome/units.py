"""The unit system. Imports nothing.

Energies are eV (per atom exactly when the name says `_per_atom`), lengths Angstrom, forces eV/Angstrom,
stress eV/Angstrom^3 with ASE's sign (positive under tension), temperatures K, charges e.
Conversion happens only where data enter or leave.
"""

GPA_IN_EV_PER_A3 = 1.0 / 160.21766208
"""One gigapascal in eV/Angstrom^3 (CODATA 2014, the value ASE and CHGNet use)."""

AMU_PER_A3_IN_G_PER_CM3 = 1.66053906660
"""One atomic mass unit per cubic Angstrom in g/cm^3 (CODATA 2018)."""

MEV = 1e-3
"""One millielectronvolt in eV."""
