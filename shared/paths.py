"""Every path of the house is built here, and nothing that resolves outside its roots gets through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shared.errors import NotFoundError, UnsafePathError
from shared.symbols import check_run_id, encode_symbol


def ensure_safe_path(path: str | Path, roots: Iterable[str | Path], *, must_exist: bool = False) -> Path:
    """The resolved path, when it lies in one of `roots` after every `..` and symlink is followed.

    Raises UnsafePathError when it does not, NotFoundError when `must_exist` and it is absent.
    """
    allowed = [Path(root).resolve() for root in roots]
    try:
        resolved = Path(path).resolve()
        missing = must_exist and not resolved.exists()
    except (OSError, ValueError, RuntimeError) as fault:
        raise UnsafePathError(f"{str(path)!r} is no usable path", cause=str(fault), fix="give a plain path") from fault
    if not any(resolved.is_relative_to(root) for root in allowed):
        listed = ", ".join(str(root) for root in allowed)
        raise UnsafePathError(
            f"{str(path)!r} leads outside the allowed folders", cause=f"allowed: {listed}", fix="move the file there"
        )
    if missing:
        raise NotFoundError(f"{str(path)!r} does not exist", fix="check the name")
    return resolved


@dataclass(frozen=True, slots=True)
class Home:
    """The layout below ASOF_HOME. Nothing is created here; whoever writes a file makes its folder."""

    root: Path

    @classmethod
    def at(cls, root: str | Path) -> Home:
        return cls(Path(root).resolve())

    # -- the lakehouse: versioned tables and their plain exports

    @property
    def lakehouse(self) -> Path:
        return self.root / "lakehouse"

    @property
    def symbols_table(self) -> Path:
        return self.lakehouse / "symbols"

    @property
    def exchanges_table(self) -> Path:
        return self.lakehouse / "exchanges"

    @property
    def symbols_export(self) -> Path:
        return self.lakehouse / "symbols.parquet"

    @property
    def exchanges_export(self) -> Path:
        return self.lakehouse / "exchanges.parquet"

    @property
    def features_export(self) -> Path:
        return self.lakehouse / "features_matrix.parquet"

    def features_table(self, interval: str, rules: str) -> Path:
        return self.lakehouse / "features" / encode_symbol(interval) / encode_symbol(rules)

    def bars_table(self, interval: str, symbol: str) -> Path:
        return self.lakehouse / "bars" / encode_symbol(interval) / encode_symbol(symbol)

    # -- one run

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, run_id: str) -> RunPaths:
        return RunPaths(self.runs / check_run_id(run_id))

    # -- the house

    @property
    def ledger(self) -> Path:
        return self.root / "audit.jsonl"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def state(self) -> Path:
        """Sockets, locks, outboxes: what a process needs to run and nobody reads as data."""
        return self.root / "state"

    @property
    def repair_notes(self) -> Path:
        """Repairs of tables that are not in the ledger yet."""
        return self.state / "auditor" / "repairs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def relative(self, path: Path) -> str:
        """A file of the house as events name it: relative to the home, with forward slashes."""
        return path.resolve().relative_to(self.root).as_posix()

    def resolve(self, reference: str) -> Path:
        """The file an event refers to; a reference that leads out of the home is refused."""
        return ensure_safe_path(self.root / reference, [self.root])


@dataclass(frozen=True, slots=True)
class RunPaths:
    """One run's folder. The auditor writes the files, the catalog `metadata/`, the features service `staged/`."""

    root: Path

    @property
    def candidates(self) -> Path:
        return self.root / "candidates.json"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def coverage(self) -> Path:
        return self.root / "feature_ingest_coverage.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def audit(self) -> Path:
        return self.root / "audit.jsonl"

    @property
    def journal(self) -> Path:
        """Every outcome the auditor noted for this run, in the order of arrival."""
        return self.root / "outcomes.jsonl"

    @property
    def metadata_parts(self) -> Path:
        return self.root / "metadata"

    @property
    def metadata(self) -> Path:
        return self.root / "metadata.parquet"

    @property
    def staged_parts(self) -> Path:
        return self.root / "staged"

    @property
    def features(self) -> Path:
        return self.root / "features.parquet"
