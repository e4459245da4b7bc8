"""Files in the form of a POTCAR, without a potential in them: VASP's own may not be distributed."""

from pathlib import Path

FOLDERS = {"PBE": "POT_GGA_PAW_PBE", "PBE_54": "POT_GGA_PAW_PBE_54"}

TEXT = """ PAW_PBE {symbol} {date}
   1.00000000000000
 parameters from PSCTR are:
   VRHFIN ={element}: no potential
   LEXCH  = {exchange}
   EATOM  =     1.0000 eV,    0.1000 Ry

   TITEL  = PAW_PBE {symbol} {date}
   LULTRA =        F    use ultrasoft PP ?
   POMASS =   10.000; ZVAL   =    8.000    mass and valenz
   ENMAX  =  400.000; ENMIN  =  300.000 eV
END of PSCTR-controll parameters
 local part
   1.0 2.0 3.0
 End of Dataset
"""


def write_potcar(
    root: Path, symbol: str, release: str = "PBE", *, exchange: str = "PE", title: str | None = None
) -> Path:
    """A file that pymatgen reads as the potential `symbol` ("Li_sv"); its title has the release in the date."""
    path = root / FOLDERS[release] / f"POTCAR.{symbol}"
    path.parent.mkdir(parents=True, exist_ok=True)
    date = {"PBE": "01Jan2000", "PBE_54": "01Jan2010"}[release]
    element = symbol.partition("_")[0]
    path.write_text(TEXT.format(symbol=title or symbol, element=element, date=date, exchange=exchange))
    return path
