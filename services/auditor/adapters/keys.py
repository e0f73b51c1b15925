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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.auditor.domain.chain import Entry
from shared.errors import ContractError

SIGNED_BY = "signed_by"
"""The field of a signed entry's data that names its key, by the start of the public key's sha256."""


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


@dataclass(frozen=True, slots=True)
class LedgerSigner:
    """Signs the hash of each entry. An entry names its signer in what is hashed, so no signature can be taken away."""

    key: Ed25519PrivateKey

    @property
    def name(self) -> str:
        return key_id(self.key.public_key())

    def sign(self, entry_hash: str) -> dict[str, str]:
        public = _text(self.key.public_key().public_bytes_raw())
        return {"key": public, "ed25519": sign(self.key, entry_hash.encode("ascii"))}


def ledger_signer(path: Path) -> LedgerSigner:
    return LedgerSigner(read_private_key(path))


def signature_flaw(entry: Entry) -> str | None:
    """What is wrong with the signature of an entry; None when it is sound, or when nobody was to sign."""
    named, signature = entry.data.get(SIGNED_BY), entry.signature
    if named is None and signature is None:
        return None
    if named is None or signature is None:
        return "its signature was taken away" if signature is None else "it bears a signature that nobody was to give"
    try:
        if signature.keys() != {"key", "ed25519"}:
            raise ValueError("its fields are others")
        public = Ed25519PublicKey.from_public_bytes(_bytes(signature["key"]))
        if key_id(public) != named:
            return f"another key than {named} signed it"
        public.verify(_bytes(signature["ed25519"]), entry.hash.encode("ascii"))
    except (InvalidSignature, ValueError, KeyError, TypeError, AttributeError) as fault:
        return f"its signature is not that of {named} over its hash ({type(fault).__name__})"
    return None


def key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _bytes(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as fault:
        raise ValueError(f"not base64: {fault}") from fault
    if _text(data) != text:
        # The last letter before the padding has bits that no byte needs: only one spelling counts.
        raise ValueError("not base64 as it is written")
    return data


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
