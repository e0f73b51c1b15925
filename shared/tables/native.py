"""The native log: a numbered manifest for each version, in a plain folder.

    <root>/manifests/00000000000000000017.json     one for each version; creating it is the commit
    <root>/manifests/checkpoint-…-<id>.json        the long lists of segments that several manifests share
    <root>/manifests/newest                        a hint where to look first: another name of the manifest that was
                                                   written last; it may be old or lost, never ahead
    <root>/manifests/collected-0                   what a collected version's manifest is replaced with (a hard link)

A commit: segments (fsync each), their folder (fsync), the manifest aside (fsync), its name only if nobody has it
(link), its folder (fsync). Until the link nobody can see anything, so whatever failed before it is cleaned up; from
the link on the outcome may be unknown, and then nothing is deleted.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from shared import files
from shared.errors import IntegrityError
from shared.tables import manifest as manifests
from shared.tables.attempt import NOT_LINKED, Attempt
from shared.tables.changes import conflict
from shared.tables.model import Manifest, Segment

# A manifest lists this many segments (and this many keys) itself; more go to a checkpoint.
INLINE_SEGMENTS = 16
INLINE_KEYS = 256

_SUFFIX = ".json"
_TOMBSTONES = "collected-"
_TOMBSTONE = b"collected\n"
_VERSION = re.compile(rb'\{"sha256":"[0-9a-f]{64}","manifest":\{"format":\d+,"version":(\d+),')


class ManifestLog:
    """See `shared.tables.table.Log`. Numbers have no gaps: a collected version's manifest becomes a tombstone and keeps
    its name, so that no number is ever used twice, and the newest version is found from any known one in a handful of
    look-ups: steps that double, then halve."""

    def __init__(self, root: Path, new_id: Callable[[], str]) -> None:
        self.root = root
        self.folder = root / "manifests"
        self._new_id = new_id
        self._hint = self.folder / "newest"
        self._listed: tuple[str, tuple[Segment, ...]] | None = None  # the checkpoint read last

    def newest(self, known: int) -> int:
        known = known or _number(self._hint) or max(self._numbered(), default=0)
        if known and not self._exists(known):
            raise _missing(self._file(known))
        known = self._probe(known)
        while _number(self._hint) > known:
            # It is never ahead: either somebody committed meanwhile, or the next number's manifest is gone.
            if not self._exists(known + 1):
                raise _missing(self._file(known + 1))
            known = self._probe(known)
        return known

    def _probe(self, known: int) -> int:
        """The newest number that exists without a gap after `known`, in steps that double, then halve."""
        step = 1
        while self._exists(known + step):
            known += step
            step *= 2
        while step > 1:
            step //= 2
            if self._exists(known + step):
                known += step
        return known

    def versions(self) -> list[int]:
        return sorted(self._numbered())

    def read(self, version: int) -> Manifest | None:
        file = self._file(version)
        try:
            data = (self.root / file).read_bytes()
            if data == _TOMBSTONE:
                return None
            body = manifests.unseal(data, file)
            checkpoint: str | None = body["checkpoint"]
            listed = () if checkpoint is None else self._checkpoint(checkpoint)
            brought = checkpoint is not None and _checkpoint_version(checkpoint) == version
            size = len(data) + ((self.root / str(checkpoint)).stat().st_size if brought else 0)
        except FileNotFoundError as fault:
            if self.was_collected(version) or version > self.newest(0):
                return None
            raise _missing(str(Path(fault.filename).relative_to(self.root))) from fault
        return manifests.decode(body, listed, size)

    def publish(self, manifest: Manifest, base: Manifest, this: Attempt) -> Manifest:
        files.make_dirs(self.folder)
        data, stored = self._encode(manifest, base, this)
        aside = self._aside(manifest.version)
        this.wrote.append(aside)
        files.write_new(aside, data)
        target = self._path(manifest.version)
        this.certain = False
        try:
            files.create_if_absent(target, aside)
        except OSError as fault:
            this.certain = fault.errno in NOT_LINKED
            if fault.errno in {errno.EEXIST, errno.ENOENT}:  # taken, or so long ago that the aside was collected
                raise conflict(self.root, manifest.version - 1, self.newest(0)) from fault
            raise
        files.sync_dir(self.folder)
        with suppress(OSError):  # the commit stands; a leftover aside is collected, a lost hint costs a listing
            aside.replace(self._hint)
        return stored

    def was_collected(self, version: int) -> bool:
        path = self._path(version)
        return path.exists() and path.read_bytes() == _TOMBSTONE

    def missing(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        numbers = {int(path.stem) for path in self.folder.glob(f"*{_SUFFIX}") if path.stem.isdigit()}
        newest = max(_number(self._hint), *numbers, 0)
        return [version for version in range(1, newest + 1) if version not in numbers]

    def version_files(self, version: int) -> Iterable[str]:
        brought = self.folder.glob(f"checkpoint-{version:012d}-*")
        return (self._file(version), *(path.relative_to(self.root).as_posix() for path in brought))

    def written_at(self, version: int) -> float:
        return self._path(version).stat().st_mtime

    def own_files(self, manifest: Manifest) -> Iterable[str]:
        return () if manifest.checkpoint is None else (manifest.checkpoint,)

    def old_files(self, newest: int) -> Iterator[Path]:
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            aside = path.name.removeprefix(".").split("-")[0]
            if path.name.startswith("checkpoint-"):
                if _checkpoint_version(path.name) <= newest:
                    yield path
            elif path.name.endswith(".tmp") and aside.isdigit() and int(aside) <= newest:
                yield path

    def forget(self, versions: Sequence[int]) -> None:
        for version in versions:
            aside = self._aside(version)
            self._link_tombstone(aside)
            aside.replace(self._path(version))
        if versions:
            files.sync_dir(self.folder)

    def _link_tombstone(self, aside: Path) -> None:
        """Another name for the one file that says "collected": a buried version takes a name and no space."""
        number = 0
        while True:
            tombstone = self.folder / f"{_TOMBSTONES}{number}"
            try:
                if not tombstone.exists():
                    files.write_new(aside, _TOMBSTONE)
                    return files.create_if_absent(tombstone, aside)
                return files.create_if_absent(aside, tombstone)
            except OSError as fault:
                aside.unlink(missing_ok=True)
                if fault.errno not in {errno.EMLINK, errno.EEXIST}:
                    raise
                number += fault.errno == errno.EMLINK

    def _numbered(self) -> list[int]:
        """The versions that have a manifest, by listing the folder."""
        if not self.folder.is_dir():
            return []
        with os.scandir(self.folder) as listing:
            entries = [(entry.name.removesuffix(_SUFFIX), entry) for entry in listing]
            return [int(stem) for stem, entry in entries if stem.isdigit() and entry.stat().st_size != len(_TOMBSTONE)]

    def _aside(self, version: int) -> Path:
        return self.folder / f".{version:012d}-{self._new_id()}.tmp"

    def _file(self, version: int) -> str:
        return f"manifests/{version:020d}{_SUFFIX}"

    def _path(self, version: int) -> Path:
        return self.root / self._file(version)

    def _exists(self, version: int) -> bool:
        return os.path.exists(f"{self.root}/{self._file(version)}")  # noqa: PTH110  asked often, and a Path costs as much

    def _checkpoint(self, file: str) -> tuple[Segment, ...]:
        known = self._listed  # another thread may replace it at any moment
        if known is not None and known[0] == file:
            return known[1]
        body = manifests.unseal((self.root / file).read_bytes(), file)
        listed = manifests.decode_segments(body["segments"])
        self._listed = (file, listed)
        return listed

    def _encode(self, manifest: Manifest, base: Manifest, this: Attempt) -> tuple[bytes, Manifest]:
        """The manifest's bytes, and the manifest as they hold it: it lists its segments itself, or what changed since
        the checkpoint of `base`, or brings a checkpoint of its own. Either way a commit writes the same few bytes at
        any size of the table."""
        if _is_short(manifest.segments):
            return _stored(manifest, None, manifest.segments)
        if base.checkpoint is not None:
            listed = self._checkpoint(base.checkpoint)
            live = {segment.file for segment in manifest.segments}
            kept = tuple(segment for segment in listed if segment.file in live)
            dropped = tuple(segment.file for segment in listed if segment.file not in live)
            rest = manifest.segments[len(kept) :]
            if manifest.segments[: len(kept)] == kept and len(dropped) <= INLINE_SEGMENTS and _is_short(rest):
                return _stored(manifest, base.checkpoint, rest, dropped)
        file = f"manifests/checkpoint-{manifest.version:012d}-{self._new_id()}{_SUFFIX}"
        this.wrote.append(self.root / file)
        checkpoint = manifests.encode(manifest, manifest.segments)
        files.write_new(self.root / file, checkpoint)
        files.sync_dir(self.folder)
        return _stored(manifest, file, (), brought=len(checkpoint))


def _stored(
    manifest: Manifest,
    checkpoint: str | None,
    listed: tuple[Segment, ...],
    dropped: tuple[str, ...] = (),
    brought: int = 0,
) -> tuple[bytes, Manifest]:
    data = manifests.encode(replace(manifest, checkpoint=checkpoint), listed, dropped)
    return data, manifests.stored(manifest, checkpoint, len(data) + brought)


def _is_short(segments: Sequence[Segment]) -> bool:
    keys = sum(len(segment.keys) for segment in segments if segment.keys is not None)
    return len(segments) <= INLINE_SEGMENTS and keys <= INLINE_KEYS


def _checkpoint_version(file: str) -> int:
    return manifests.segment_version(file.rsplit("checkpoint-", 1)[-1])


def _missing(file: str) -> IntegrityError:
    return IntegrityError(f"manifest {file} is missing", cause="it was there before", fix=manifests.RESTORE)


def _number(hint: Path) -> int:
    """The version of the manifest that is the hint; 0 when it is absent or unreadable."""
    try:
        handle = os.open(hint, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        found = _VERSION.match(os.read(handle, 256))
    finally:
        os.close(handle)
    return int(found[1]) if found else 0
