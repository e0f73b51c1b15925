"""Ed25519 keys: those of the approvers in approvers.toml, and the ledger's own from a secret file.

approvers.toml          [approvers]
                        ben = "<32 bytes of public key, base64>"
a secret file           32 bytes of private key, base64, one line
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.errors import ContractError


class ApproverKeys:
    """Checks approvers' signatures against the public keys of a file."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey], source: Path) -> None:
        self._keys = keys
        self._source = source

    @classmethod
    def read(cls, path: Path) -> ApproverKeys:
        """Raises ContractError that names the file and the line's fault."""
        try:
            listed = tomllib.loads(path.read_text(encoding="utf-8"))["approvers"]
            keys = {str(name): Ed25519PublicKey.from_public_bytes(_bytes(text)) for name, text in listed.items()}
        except (OSError, tomllib.TOMLDecodeError, KeyError, ValueError, AttributeError, TypeError) as fault:
            raise ContractError(
                f"{path} names no approvers",
                cause=f"{type(fault).__name__}: {fault}",
                fix='[approvers] NAME = "<base64>"',
            ) from fault
        return cls(keys, path)

    def check(self, approver: str, statement: bytes, signature: str | None) -> None:
        key = self._keys.get(approver)
        if key is None:
            raise ContractError(
                f"{approver!r} is no approver here", cause=f"{self._source.name} names {', '.join(sorted(self._keys))}"
            )
        if signature is None:
            raise ContractError(
                "the waiver is not signed", cause="this house has approvers' keys", fix="asof waive --key FILE"
            )
        try:
            key.verify(_bytes(signature), statement)
        except (InvalidSignature, ValueError) as fault:
            raise ContractError(
                f"the signature is not {approver!r}'s over this waiver",
                cause="the waiver was changed after it was signed, or another key signed it",
                fix="sign it again with asof waive --key FILE",
            ) from fault


def new_key() -> tuple[str, str]:
    """A private key and its public key, base64: for the secret file and for approvers.toml."""
    private = Ed25519PrivateKey.generate()
    return _text(private.private_bytes_raw()), _text(private.public_key().public_bytes_raw())


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Raises ContractError when the file is no key, or may be read by others than its owner."""
    try:
        mode = path.stat().st_mode
        key = Ed25519PrivateKey.from_private_bytes(_bytes(path.read_text(encoding="ascii").strip()))
    except (OSError, ValueError) as fault:
        raise ContractError(
            f"{path} holds no private key", cause=str(fault), fix="32 bytes, base64, one line"
        ) from fault
    if mode & 0o077:
        raise ContractError(f"{path} may be read by others", cause=f"mode {mode & 0o777:o}", fix=f"chmod 600 {path}")
    return key


def sign(key: Ed25519PrivateKey, data: bytes) -> str:
    return _text(key.sign(data))


def ledger_signer(path: Path) -> Callable[[str], Mapping[str, str]]:
    """Signs the hash of each entry; `key` names the public key by the start of its sha256."""
    key = read_private_key(path)
    name = key_id(key.public_key())
    return lambda entry_hash: {"key": name, "ed25519": sign(key, entry_hash.encode("ascii"))}


def signed_by(public_key: str, entry_hash: str, signature: Mapping[str, str] | None) -> bool:
    """True when the entry's signature is this public key's (base64)."""
    if signature is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(_bytes(public_key)).verify(
            _bytes(signature["ed25519"]), entry_hash.encode("ascii")
        )
    except (InvalidSignature, ValueError, KeyError):
        return False
    return True


def key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as fault:
        raise ValueError(f"not base64: {fault}") from fault


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
