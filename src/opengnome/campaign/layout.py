"""Where things are in a campaign directory. Paths in the journal are relative to it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Names of the files of a campaign."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "settings.toml"

    @property
    def journal(self) -> Path:
        return self.root / "journal.sqlite"

    @property
    def progress(self) -> Path:
        return self.root / "progress.jsonl"

    @property
    def references(self) -> Path:
        """Crystals the oracle computes to align its energies."""
        return self.root / "references.parquet"

    def calculation(self, key: str) -> Path:
        """A calculation, named by the digest of its crystal and of the oracle's settings."""
        return self.root / "calculations" / f"{key}.parquet"

    def round(self, number: int) -> Path:
        return self.root / "rounds" / f"{number:02d}"

    def parents(self, number: int) -> Path:
        return self.round(number) / "parents.parquet"

    def formulas(self, number: int) -> Path:
        return self.round(number) / "known_formulas.txt"

    def training(self, number: int) -> Path:
        return self.round(number) / "training.parquet"

    def member(self, number: int, member: int) -> Path:
        return self.round(number) / "members" / f"{member}.safetensors"

    def ensemble(self, number: int) -> Path:
        return self.round(number) / "ensemble"

    def shard(self, number: int, shard: int) -> Path:
        return self.round(number) / "shards" / f"{shard:05d}.parquet"

    def hull(self, number: int) -> Path:
        """The entries on the hull that candidates of a round are measured against."""
        return self.round(number) / "hull.parquet"

    def kept(self, number: int) -> Path:
        """The lowest candidate of each composition within the window, without its crystal."""
        return self.round(number) / "kept.parquet"

    def compositional(self, number: int) -> Path:
        """Folder of the compositional networks of a round: their training rows, members and ensemble."""
        return self.round(number) / "compositional"

    def compositional_ensemble(self, number: int) -> Path:
        """The calibrated ensemble of these networks."""
        return self.compositional(number) / "ensemble"

    def compositions(self, number: int) -> Path:
        """Every scored composition of a round with its prediction."""
        return self.round(number) / "compositions.parquet"

    def search(self, number: int, candidate_id: str) -> Path:
        """The runs of the search for the lowest crystal of a composition."""
        return self.round(number) / "searches" / f"{candidate_id}.parquet"

    def chosen(self, number: int) -> Path:
        """The crystals sent to the oracle, as generated."""
        return self.round(number) / "chosen.parquet"

    def relative(self, path: Path) -> str:
        """A path as it is written into the journal."""
        return path.relative_to(self.root).as_posix()
