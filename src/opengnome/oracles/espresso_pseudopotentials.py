"""Which pseudopotential and which cutoffs each element gets, from a folder of UPF files."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengnome.crystals.elements import SYMBOLS
from opengnome.errors import ElementsLackDataError, OracleSetupError
from opengnome.oracles.espresso_settings import EspressoSettings

_ELEMENT_OF_NAME = re.compile(r"([A-Za-z]{1,2})(?=[._-])")
_FUNCTIONAL = re.compile(r'functional\s*=\s*"([^"]*)"|^(.*?)\s+Exchange-Correlation functional', re.MULTILINE)
_HEADER_CHARACTERS = 65536
"""The header of a UPF file comes before its tables; what its generator was given can be long."""

_FUNCTIONAL_NAMES = {
    "PBE": "pbe", "SLA PW PBX PBC": "pbe", "SLA PW PBE PBE": "pbe",
    "PBESOL": "pbesol", "SLA PW PSX PSC": "pbesol",
    "BLYP": "blyp", "SLA LYP B88 BLYP": "blyp",
    "TPSS": "tpss", "SLA PW TPSS TPSS": "tpss",
    "PZ": "lda", "LDA": "lda", "SLA PZ NOGX NOGC": "lda",
}  # fmt: skip
"""Names of one functional in UPF files; any other is taken as it is."""


@dataclass(frozen=True)
class Pseudopotential:
    """The pseudopotential of one element."""

    path: Path
    functional: str
    """E.g. "pbe"."""
    ecutwfc_ry: float | None
    """Suggested by the SSSP file, Rydberg; None without one."""
    ecutrho_ry: float | None


class PseudopotentialFolder:
    """The UPF files of a folder, one per element."""

    def __init__(self, settings: EspressoSettings) -> None:
        """Raises `OracleSetupError` when the folder is missing or empty, when a file that was asked for is not there,
        or when the files are of several functionals and the settings do not say of which to take them.
        """
        if settings.pseudo_dir is None:
            raise OracleSetupError(
                "Quantum ESPRESSO needs a folder of pseudopotentials (UPF): set espresso.pseudo_dir, for instance to "
                "an unpacked SSSP library"
            )
        self.folder = settings.pseudo_dir.expanduser()
        if not self.folder.is_dir():
            raise OracleSetupError(
                f"the folder of pseudopotentials {self.folder} does not exist; set espresso.pseudo_dir"
            )
        self._files = _files_by_element(self.folder)
        self._suggested = _suggestions(self.folder)
        self._chosen = dict(settings.pseudopotentials)
        if not self._files and not self._chosen:
            raise OracleSetupError(f"{self.folder} has no UPF file; set espresso.pseudo_dir")
        for element, name in self._chosen.items():
            if element not in SYMBOLS or not (self.folder / name).is_file():
                raise OracleSetupError(
                    f"espresso.pseudopotentials has {element} = {name!r}: no such element, or no such file in "
                    f"{self.folder}"
                )
        self.functional = self._one_functional(settings.functional)
        """The exchange-correlation functional of the files, e.g. "pbe"."""
        self.family = settings.family or f"{self.folder.resolve().name}-{self._content()}"
        """Name of the set: the one that was given, or that of the folder with a digest of the files in it."""

    def _content(self) -> str:
        """Digest (8 hex characters) of the files that elements may get, by element, wherever they are.

        A file has the MD5 that the SSSP file says, which is checked when its element is asked for, else its own.
        """
        files = []
        for symbol in sorted({*self._files, *self._suggested, *self._chosen}):
            for name in self._candidates(symbol):
                suggested = self._suggested.get(symbol, {})
                expected = suggested.get("md5") if suggested.get("filename") == name else None
                files.append(f"{symbol} {expected or _md5(self.folder / name)}")
        return hashlib.sha256("\n".join(files).encode()).hexdigest()[:8]

    def _one_functional(self, wanted: str | None) -> str:
        """That of all files, or the one that is `wanted`, in which case the files of others are forgotten."""
        names: dict[str, list[str]] = {}
        for symbol in sorted({*self._files, *self._suggested, *self._chosen}):
            for name in self._candidates(symbol):
                with suppress(OracleSetupError):  # a file that is none is told to who asks for its element
                    names.setdefault(_functional(self.folder / name), []).append(name)
        described = "; ".join(f"{functional}: {_some(files)}" for functional, files in sorted(names.items()))
        if wanted is not None:
            if wanted not in names:
                raise OracleSetupError(
                    f"{self.folder} has no pseudopotentials of espresso.functional = {wanted!r}, only {described}"
                )
            known = set(names[wanted])
            self._files = {symbol: [n for n in files if n in known] for symbol, files in self._files.items()}
            return wanted
        if len(names) > 1:
            raise OracleSetupError(
                f"{self.folder} has pseudopotentials of {len(names)} functionals ({described}), whose energies share "
                f"no hull; say which to take, for instance espresso.functional = {min(names)!r}"
            )
        return next(iter(names), "unknown")

    def of(self, symbols: Iterable[str]) -> dict[str, Pseudopotential]:
        """The pseudopotential of each element, by symbol.

        Raises `ElementsLackDataError` naming every element that has none, `OracleSetupError` when one has several or a
        damaged file, or the functionals differ.
        """
        wanted = sorted(set(symbols))
        missing = [symbol for symbol in wanted if not self._candidates(symbol)]
        if missing:
            raise ElementsLackDataError(
                f"no pseudopotential for {', '.join(missing)} in {self.folder}; add the UPF files, or leave these "
                "elements out of the chemistry"
            )
        for symbol in wanted:
            names = self._candidates(symbol)
            if len(names) > 1:
                raise OracleSetupError(
                    f"{self.folder} has {len(names)} pseudopotentials for {symbol}: {', '.join(names)}; choose one by "
                    f"espresso.pseudopotentials = {{{symbol} = {names[0]!r}}}"
                )
        found = {symbol: self._read(symbol, self._candidates(symbol)[0]) for symbol in wanted}
        functionals = {symbol: found[symbol].functional for symbol in wanted}
        if len(set(functionals.values())) > 1:
            told = ", ".join(f"{found[symbol].path.name}: {functionals[symbol]}" for symbol in wanted)
            raise OracleSetupError(f"the pseudopotentials are of different functionals ({told}); take those of one")
        return found

    def _candidates(self, symbol: str) -> list[str]:
        if symbol in self._chosen:
            return [self._chosen[symbol]]
        suggested = self._suggested.get(symbol, {}).get("filename")
        if suggested and (self.folder / suggested).is_file():
            return [suggested]
        return self._files.get(symbol, [])

    def _read(self, symbol: str, name: str) -> Pseudopotential:
        path, suggested = self.folder / name, self._suggested.get(symbol, {})
        if suggested.get("filename") != name:
            suggested = {}  # the cutoffs are those of another file
        expected = suggested.get("md5")
        if expected and _md5(path) != expected:
            raise OracleSetupError(
                f"{path} is not the file that the SSSP file describes (its MD5 differs); get it again"
            )
        return Pseudopotential(path, _functional(path), suggested.get("cutoff_wfc"), suggested.get("cutoff_rho"))


def cutoffs_ry(pseudopotentials: Mapping[str, Pseudopotential], settings: EspressoSettings) -> tuple[float, float]:
    """Cutoffs of wave functions and density for a crystal of these elements, Rydberg.

    Raises `ElementsLackDataError` naming the elements for which neither the settings nor an SSSP file has one.
    """
    if settings.ecutwfc_ry is not None:
        return settings.ecutwfc_ry, settings.ecutrho_ry or 8.0 * settings.ecutwfc_ry
    without = [symbol for symbol, found in pseudopotentials.items() if not (found.ecutwfc_ry and found.ecutrho_ry)]
    if without:
        raise ElementsLackDataError(
            f"no cutoff for {', '.join(without)}: set espresso.ecutwfc_ry, or put the library's SSSP JSON file into "
            "espresso.pseudo_dir"
        )
    wave = max(found.ecutwfc_ry or 0.0 for found in pseudopotentials.values())
    density = max(found.ecutrho_ry or 0.0 for found in pseudopotentials.values())
    return wave, settings.ecutrho_ry or density


def _files_by_element(folder: Path) -> dict[str, list[str]]:
    """Names of UPF files by the element that their name begins with: "Si.pbe-n-rrkjus_psl.1.0.0.UPF", "ge_pbe.upf"."""
    files: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        match = _ELEMENT_OF_NAME.match(path.name)
        if path.suffix.lower() == ".upf" and match and match[1].capitalize() in SYMBOLS:
            files.setdefault(match[1].capitalize(), []).append(path.name)
    return files


def _suggestions(folder: Path) -> dict[str, dict[str, Any]]:
    """File name, MD5 and cutoffs by element from the SSSP JSON file of the folder; empty without one."""
    tables = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise OracleSetupError(f"{path} is not a readable JSON file: {error}") from error
        if isinstance(content, dict) and any(isinstance(v, dict) and "cutoff_wfc" in v for v in content.values()):
            tables.append((path, content))
    if len(tables) > 1:
        names = ", ".join(path.name for path, _ in tables)
        raise OracleSetupError(f"{folder} has several SSSP files ({names}); leave the one of these pseudopotentials")
    return tables[0][1] if tables else {}


def _some(names: list[str]) -> str:
    """The first names of a list that may be long."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _md5(path: Path) -> str:
    try:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError as error:
        raise OracleSetupError(f"the pseudopotential {path} cannot be read: {error.strerror}") from error


def _functional(path: Path) -> str:
    """The exchange-correlation functional that a UPF file (version 1 or 2) says it is of."""
    try:
        with path.open(errors="replace") as file:
            header = file.read(_HEADER_CHARACTERS)
    except OSError as error:
        raise OracleSetupError(f"the pseudopotential {path} cannot be read: {error.strerror}") from error
    match = _FUNCTIONAL.search(header)
    if "<PP_HEADER" not in header or match is None:
        raise OracleSetupError(f"{path} is not a UPF file: it has no header that names a functional")
    words = " ".join((match[1] or match[2]).split())
    known = (name for spelled, name in _FUNCTIONAL_NAMES.items() if words == spelled or words.startswith(f"{spelled} "))
    return next(known, words.lower().replace(" ", "-"))
