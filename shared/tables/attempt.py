"""A commit under way: what it wrote, whether it can still be undone, and what a disk's refusal means."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import CommitConflict, PipelineError, TerminalError, TransientError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EOPNOTSUPP}
# After one of these a link was not made; after any other error from it, nobody knows.
NOT_LINKED = _FULL | _REFUSED | {errno.EEXIST, errno.ENOENT, errno.EMLINK}


@dataclass(slots=True)
class Attempt:
    """The files that one commit wrote, and whether it is certain that no version names them."""

    wrote: list[Path] = field(default_factory=list)
    certain: bool = True

    def done(self) -> None:
        """The commit stands: its files are the table's now."""
        self.wrote.clear()


@contextmanager
def attempt(root: Path) -> Iterator[Attempt]:
    """Removes a commit's files when it failed for sure, deletes nothing when its outcome is unknown."""
    this = Attempt()
    try:
        yield this
    except OSError as fault:
        raise _explained(root, fault, certain=this.certain) from fault
    finally:
        if this.certain:
            for path in this.wrote:
                with suppress(OSError):  # what cannot be removed now is collected later
                    path.unlink(missing_ok=True)


def _explained(root: Path, fault: OSError, *, certain: bool) -> PipelineError:
    if not certain:
        return TransientError(
            f"{root.name}: whether the commit took place is unknown; nothing was deleted",
            cause=str(fault),
            fix="reload and apply the same changes again",
        )
    if fault.errno == errno.ENOENT:
        return CommitConflict(
            f"{root.name}: somebody else committed first, so long ago that the files of this commit were collected",
            cause=str(fault),
            fix="reload, recompute, commit again",
        )
    if fault.errno in _FULL:
        return TransientError(
            f"{root.name}: the disk is full; nothing was committed and the table is intact",
            cause=str(fault),
            fix="free space (asof gc), then try again",
        )
    if fault.errno in _REFUSED:
        return TerminalError(
            f"{root.name}: the table cannot be written; it is intact",
            cause=str(fault),
            fix="check the folder's owner, and that its file system has hard links",
        )
    return TransientError(f"{root.name}: nothing was committed; the table is intact", cause=str(fault), fix="try again")
