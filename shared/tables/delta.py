"""The Delta log: the same segments, with versions numbered and claimed by delta-rs, for houses that read Delta tables.

    <root>/_delta_log/00000000000000000016.json    one for each commit; the number is created only if absent
    <root>/_asof/collected                         versions whose files were collected

Each commit carries our manifest, sealed with its checksum, as `asof` in its commitInfo. Version n of ours is the n-th
commit that has one; commits without (a new column in the Delta schema, a VACUUM) make no version of ours, and one
that changes files without a manifest of ours is refused. The rules are the contract's, not Delta's: a writer whose
base is not the newest is refused even where Delta would let two appends pass.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from shared import files
from shared.errors import IntegrityError
from shared.tables import manifest as manifests
from shared.tables.attempt import Attempt
from shared.tables.changes import conflict
from shared.tables.model import Manifest, Segment
from shared.tables.segment import open_segment

# Old versions stay readable until our own collection: Delta's cleaning of the log is put off for good.
_CONFIGURATION = {"delta.logRetentionDuration": "interval 36500 days", "delta.enableExpiredLogCleanup": "false"}
_NO_RETRY = 0


class DeltaLog:
    """See `shared.tables.table.Log`."""

    def __init__(self, root: Path, now_ms: Callable[[], int]) -> None:
        self.root = root
        self.folder = root / "_delta_log"
        self._now_ms = now_ms
        self._collected = root / "_asof" / "collected"

    def newest(self, known: int) -> int:
        del known  # Delta's own numbers are probed: commits that are no version of ours make them differ
        found = self._newest_ours(self._last_commit())
        version: int = 0 if found is None else found[1]["version"]
        return version

    def versions(self) -> list[int]:
        gone = self._gone()
        ours = (self._body(number) for number in range(self._last_commit() + 1))
        return [body["version"] for body in ours if body is not None and body["version"] not in gone]

    def read(self, version: int) -> Manifest | None:
        if version in self._gone():
            return None
        for number in range(version - 1, self._last_commit() + 1):
            body = self._body(number)
            if body is not None and body["version"] == version:
                return manifests.decode(body, (), self._path(number).stat().st_size)
            if body is not None and body["version"] > version:
                break
        return None

    def missing(self) -> list[int]:
        return []  # the Delta log has no gaps: delta-rs refuses one

    def version_files(self, version: int) -> Iterable[str]:
        del version  # the Delta log is delta's to clean
        return ()

    def written_at(self, version: int) -> float:
        number = next(
            number for number in range(version - 1, self._last_commit() + 1) if self._is_version(number, version)
        )
        return self._path(number).stat().st_mtime

    def publish(self, manifest: Manifest, base: Manifest, this: Attempt) -> Manifest:
        live = {segment.file for segment in base.segments}
        wanted = {segment.file for segment in manifest.segments}
        added = [segment for segment in manifest.segments if segment.file not in live]
        removed = [segment for segment in base.segments if segment.file not in wanted]
        schema = pa.unify_schemas(
            [_delta_schema(open_segment(self.root, segment).schema) for segment in added] or [pa.schema([])],
            promote_options="permissive",
        )
        sealed = manifests.encode(manifest, manifest.segments).decode()
        actions = [self._add(segment) for segment in added]
        this.certain = False
        number = self._last_commit() + 1
        try:
            if number == 0:
                self._create(schema, actions, sealed)
            else:
                number = self._append(schema, actions, removed, manifest.version - 1, sealed)
        except CommitFailedError as fault:
            this.certain = True
            raise conflict(self.root, manifest.version - 1, self.newest(0)) from fault
        except DeltaError as fault:
            number = self._after_fault(fault, manifest.version, sealed, this)
        files.sync_file(self._path(number))
        files.sync_dir(self.folder)
        files.sync_dir(self.root)
        return manifests.stored(manifest, None, self._path(number).stat().st_size)

    def was_collected(self, version: int) -> bool:
        return version in self._gone()

    def own_files(self, manifest: Manifest) -> Iterable[str]:
        del manifest  # the Delta log is delta's to clean
        return ()

    def old_files(self, newest: int) -> Iterator[Path]:
        del newest
        return iter(())

    def forget(self, versions: Sequence[int]) -> None:
        if versions:
            files.make_dirs(self._collected.parent)
            gone: list[int] = sorted({*self._gone(), *versions})
            files.write_atomic(self._collected, manifests.seal({"format": manifests.FORMAT, "versions": gone}))

    # -- inside

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:020d}.json"

    def _last_commit(self) -> int:
        """The number of Delta's newest commit, -1 when there is none."""
        known, step = -1, 1
        while self._path(known + step).exists():
            known += step
            step *= 2
        while step > 1:
            step //= 2
            if self._path(known + step).exists():
                known += step
        return known

    def _body(self, number: int) -> dict[str, Any] | None:
        """The manifest inside a commit, checked; None for a commit that is no version and changed no file."""
        path = self._path(number)
        name = f"_delta_log/{path.name}"
        try:
            actions = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
            info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
        except (FileNotFoundError, ValueError) as fault:
            raise IntegrityError(f"{name} is unreadable", cause=str(fault), fix="restore it from a backup") from fault
        if "asof" in info:
            return manifests.unseal(info["asof"].encode(), name)
        if any("add" in action or "remove" in action for action in actions):
            raise IntegrityError(
                f"{name} changed the table's files without saying what they mean",
                cause=f"operation {info.get('operation')} of {info.get('engineInfo')}",
                fix="DeltaTable.restore to the commit before it, and write through asof only",
            )
        return None

    def _newest_ours(self, number: int) -> tuple[int, dict[str, Any]] | None:
        while number >= 0:
            body = self._body(number)
            if body is not None:
                return number, body
            number -= 1
        return None

    def _gone(self) -> frozenset[int]:
        if not self._collected.exists():
            return frozenset()
        body = manifests.unseal(self._collected.read_bytes(), "_asof/collected")
        return frozenset(body["versions"])

    def _add(self, segment: Segment) -> AddAction:
        stats = json.dumps({"numRecords": segment.rows})
        return AddAction(segment.file, segment.size, {}, self._now_ms(), True, stats)

    def _create(self, schema: pa.Schema, actions: list[AddAction], sealed: str) -> None:
        create_table_with_add_actions(
            str(self.root),
            Schema.from_arrow(schema),
            actions,
            mode="error",
            configuration=_CONFIGURATION,
            commit_properties=_stamped(sealed),
        )

    def _append(
        self, schema: pa.Schema, actions: list[AddAction], removed: list[Segment], base_version: int, sealed: str
    ) -> int:
        """Commits on top of Delta's newest commit, if that still is the caller's base; returns the commit's number."""
        delta = DeltaTable(self.root)
        new = _new_fields(delta.schema(), schema)
        if new:
            delta.alter.add_columns(new)
            delta = DeltaTable(self.root)
        found = self._newest_ours(delta.version())
        newest: int = 0 if found is None else found[1]["version"]
        if newest != base_version:
            raise CommitFailedError(f"version {newest} is newer than {base_version}")
        gone = [RemoveAction(s.file, True, self._now_ms(), size=s.size) for s in removed]
        delta.create_write_transaction(
            [*gone, *actions],
            "append",
            delta.schema(),
            commit_properties=_stamped(sealed),
            post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
        )
        return delta.version() + 1

    def _after_fault(self, fault: DeltaError, version: int, sealed: str, this: Attempt) -> int:
        """The number of our commit when it landed in spite of the fault; raises when it did not."""
        found = self._newest_ours(self._last_commit())
        if found is not None and found[1]["version"] >= version:
            number = next(number for number in range(version - 1, found[0] + 1) if self._is_version(number, version))
            if json.dumps(sealed)[1:-1] in self._path(number).read_text():
                return number
            this.certain = True
            raise conflict(self.root, version - 1, found[1]["version"]) from fault
        this.certain = True
        full = "no space left" in str(fault).lower()
        raise OSError(errno.ENOSPC if full else errno.EIO, str(fault)) from fault

    def _is_version(self, number: int, version: int) -> bool:
        body = self._body(number)
        return body is not None and body["version"] == version


def _stamped(sealed: str) -> CommitProperties:
    return CommitProperties(custom_metadata={"asof": sealed}, max_commit_retries=_NO_RETRY)


def _delta_schema(schema: pa.Schema) -> pa.Schema:
    """Delta has no dictionary type: such columns are text to it. The segments keep them as they are."""
    plain = [
        pa.field(field.name, field.type.value_type if isinstance(field.type, pa.DictionaryType) else field.type)
        for field in schema
    ]
    return pa.schema(plain)


def _new_fields(known: Schema, schema: pa.Schema) -> list[Field]:
    names = {field.name for field in known.fields}
    return [field for field in Schema.from_arrow(schema).fields if field.name not in names]
