"""What a commit does to the list of segments; the same for every backend, and free of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.errors import CommitConflict, ContractError, StaleEpochError
from shared.tables.model import Changes, JsonValue, Manifest, Segment


def check_base(root: Path, newest: Manifest, base_version: int, epoch: int) -> None:
    """Refuses a writer whose lease was taken over (StaleEpochError), then one whose base is old (CommitConflict)."""
    if epoch < newest.epoch:
        raise StaleEpochError(
            f"{root.name}: a newer lease holder writes this table",
            cause=f"epoch {epoch} is behind {newest.epoch} of version {newest.version}",
            fix="take the lease again and reload",
        )
    if base_version != newest.version:
        raise conflict(root, base_version, newest.version)


def conflict(root: Path, base_version: int, newest: int) -> CommitConflict:
    return CommitConflict(
        f"{root.name}: somebody else committed first",
        cause=f"based on version {base_version}, the newest is {newest}",
        fix="reload, recompute, commit again",
    )


def next_manifest(
    base: Manifest, changes: Changes, added: Sequence[Segment], *, epoch: int, meta: Mapping[str, JsonValue]
) -> Manifest:
    """The version after `base`. Keyed segments whose every key is newer elsewhere fall out of it."""
    live = {segment.file for segment in base.segments}
    unknown = [file for file in changes.drop if file not in live]
    if unknown:
        raise ContractError(
            f"segment {unknown[0]} cannot be dropped", cause=f"it is not in version {base.version}", fix="reload"
        )
    version = base.version + 1
    kept = [segment for segment in base.segments if segment.file not in changes.drop]
    return Manifest(
        version=version,
        epoch=epoch,
        segments=_without_hidden([*kept, *added]),
        meta=dict(meta),
        rewritten=version if changes.drop else base.rewritten,
    )


def compacted(
    base: Manifest,
    replaced: Sequence[Segment],
    new: Segment,
    *,
    folded: bool,
    meta: Mapping[str, JsonValue] | None = None,
) -> Manifest:
    """The version after `base` in which `new` stands where the adjacent segments `replaced` stood.

    Its meta is that of `base` unless given: the rows mean the same.
    """
    files = {segment.file for segment in replaced}
    version = base.version + 1
    segments: list[Segment] = []
    for segment in base.segments:
        if segment.file not in files:
            segments.append(segment)
        elif segment.file == replaced[-1].file:
            segments.append(new)
    return Manifest(
        version=version,
        epoch=base.epoch,
        segments=tuple(segments),
        meta=dict(base.meta if meta is None else meta),
        rewritten=version if folded else base.rewritten,
    )


def small_tail(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The newest segments that are worth merging into one: each at most four times the rows of all after it.

    Merging these only, every row is rewritten a number of times that grows with the logarithm of the table, and the
    number of segments stays as small.
    """
    rows, start = 0, len(segments)
    while start > 0 and segments[start - 1].rows <= 4 * max(rows, 256):
        start -= 1
        rows += segments[start].rows
    return tuple(segments[start:])


def _without_hidden(segments: list[Segment]) -> tuple[Segment, ...]:
    hidden: set[str] = set()
    live = []
    for segment in reversed(segments):
        if segment.keys is None or not hidden.issuperset(segment.keys):
            live.append(segment)
        hidden.update(segment.keys or ())
    return tuple(reversed(live))
