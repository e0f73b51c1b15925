"""Manifests as bytes: one line of JSON that carries its own checksum.

`{"sha256":"<64 hex>","manifest":{...}}`, the checksum over the exact bytes of the inner object. A manifest lists its
segments itself while they are few; beyond that it names a checkpoint (the same format, shared by several versions)
and says what left and what came since, so that a commit writes the same few bytes at any size of the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shared.errors import ContractError, IntegrityError
from shared.files import sha256_bytes
from shared.tables.model import KEY_COLUMN, JsonValue, Manifest, Segment

FORMAT = 1
RESTORE = "asof audit tables --repair (goes back to the newest sound version), or restore the file from a backup"

_HEAD = b'{"sha256":"'
_MIDDLE = b'","manifest":'
_TAIL = b"}\n"
_BODY = len(_HEAD) + 64 + len(_MIDDLE)


def seal(body: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest or checkpoint. Raises ContractError for what is not JSON, NaN included."""
    try:
        inner = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as fault:
        raise ContractError(
            "the commit's meta is not JSON", cause=str(fault), fix="pass text, numbers, lists"
        ) from fault
    return _HEAD + sha256_bytes(inner).encode() + _MIDDLE + inner + _TAIL


def unseal(data: bytes, name: str) -> dict[str, Any]:
    """The inner object, after its checksum was compared. `name` is what the error calls the file."""
    inner = data[_BODY : -len(_TAIL)]
    if data[:_BODY] != _HEAD + sha256_bytes(inner).encode() + _MIDDLE or not data.endswith(_TAIL):
        raise IntegrityError(
            f"{name} is torn or was changed", cause=f"{len(data)} bytes do not match its checksum", fix=RESTORE
        )
    body: dict[str, Any] = json.loads(inner)
    if body["format"] != FORMAT:
        raise ContractError(
            f"{name} has format {body['format']}", cause=f"this version reads format {FORMAT}", fix="upgrade asof"
        )
    return body


def encode_segments(segments: tuple[Segment, ...]) -> list[dict[str, Any]]:
    return [_segment_to_json(segment) for segment in segments]


def decode_segments(entries: list[dict[str, Any]]) -> tuple[Segment, ...]:
    return tuple(_segment_from_json(entry) for entry in entries)


def encode(manifest: Manifest, listed: tuple[Segment, ...], dropped: tuple[str, ...] = ()) -> bytes:
    """`listed` are the segments this file lists itself; `dropped` those of its checkpoint that are gone."""
    return seal(
        {
            "format": FORMAT,
            "version": manifest.version,
            "epoch": manifest.epoch,
            "rewritten": manifest.rewritten,
            "checkpoint": manifest.checkpoint,
            "dropped": list(dropped),
            "segments": encode_segments(listed),
            "meta": dict(manifest.meta),
        }
    )


def decode(body: dict[str, Any], base: tuple[Segment, ...], size: int) -> Manifest:
    """`base`: its checkpoint's segments; `size`: bytes of the manifest's file and of a checkpoint it brought."""
    dropped = set(body["dropped"])
    segments = (*(s for s in base if s.file not in dropped), *decode_segments(body["segments"]))
    meta: dict[str, JsonValue] = body["meta"]
    manifest = Manifest(body["version"], body["epoch"], segments, meta, body["rewritten"])
    return stored(manifest, body["checkpoint"], size)


def stored(manifest: Manifest, checkpoint: str | None, size: int) -> Manifest:
    """The manifest as it lies in a file of its own that names this checkpoint; `size` as of `decode`."""
    brought = f"segments/{manifest.version:012d}-"
    own = sum(segment.size for segment in manifest.segments if segment.file.startswith(brought))
    return replace(manifest, checkpoint=checkpoint, written=size + own)


def segment_version(file: str) -> int:
    """The version a segment or checkpoint was written for: `segments/000000000017-3f….parquet` -> 17."""
    return int(file.rsplit("/", 1)[-1].split("-", 1)[0])


def _segment_to_json(segment: Segment) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "file": segment.file,
        "size": segment.size,
        "sha256": segment.sha256,
        "rows": segment.rows,
        "versions": [segment.first, segment.last],
    }
    if segment.footer is not None:
        entry["footer"] = segment.footer
    if segment.keys is not None:
        entry["keys"] = list(segment.keys)
        if segment.key_column != KEY_COLUMN:
            entry["key_column"] = segment.key_column
    return entry


def _segment_from_json(entry: dict[str, Any]) -> Segment:
    keys = entry.get("keys")
    return Segment(
        file=entry["file"],
        size=entry["size"],
        sha256=entry["sha256"],
        rows=entry["rows"],
        first=entry["versions"][0],
        last=entry["versions"][1],
        keys=None if keys is None else tuple(keys),
        key_column=entry.get("key_column", KEY_COLUMN),
        footer=entry.get("footer"),
    )
