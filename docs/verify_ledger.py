#!/usr/bin/env python3
"""Verify a ledger with nothing but this file and Python's standard library.

    python3 verify_ledger.py data/audit.jsonl                the chain, and every head the house itself remembers
    python3 verify_ledger.py data/audit.jsonl --head HASH    also that this published head is in it
    python3 verify_ledger.py data/runs/RUN/audit.jsonl       one run's extract, by itself

It finds any change, deletion, insertion, reordering or truncation of entries and says where. What it relies on:

    body = sha256(canonical JSON (RFC 8785) of the entry without prev, hash and signature)
    hash = sha256(prev + body), both as 64 hex digits of text; the first entry's prev is 64 zeros

A line is the canonical JSON of its entry and a line feed, nothing else. A ledger that was cut off at an entry's end,
or written anew as a whole, is consistent in itself: that shows only against heads that somebody remembers. Heads are
carried in every decision and alert; this program also looks at what lies beside the ledger: `runs/*/audit.jsonl` and
`state/auditor/ledger-head.json`. An extract's line has one field more: `between`, the bodies of the foreign entries
that lead to it.

Where the ledger is signed, an entry's data names its key (`signed_by`, the start of the public key's sha256), and its
`signature` has that key and an Ed25519 signature (RFC 8032) of its hash. `--key` says whose every entry has to be.

Exit code 0: sound; 5: not sound; 2: cannot be read.
"""

import argparse
import base64
import hashlib
import json
import math
import pathlib
import sys
from decimal import Decimal
from json.encoder import encode_basestring

BODY = ("n", "time", "kind", "run_id", "key", "data")
FIELDS = {*BODY, "prev", "hash"}


def canonical(value):
    if isinstance(value, str):
        return encode_basestring(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        if abs(value) <= 2**53 - 1:
            return str(value)
        if number(float(value)) != str(value):
            raise ValueError("an integer that no double spells")
        return str(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
    return "{" + ",".join(encode_basestring(key) + ":" + canonical(item) for key, item in members) + "}"


def number(value):
    """A double as ECMAScript writes it."""
    if not math.isfinite(value):
        raise ValueError("NaN and infinities are no JSON")
    if value == 0:
        return "0"
    sign, parts, exponent = Decimal(repr(value)).as_tuple()
    digits = "".join(map(str, parts)).rstrip("0")
    point = len(parts) + exponent
    if len(digits) <= point <= 21:
        text = digits + "0" * (point - len(digits))
    elif 0 < point <= 21:
        text = digits[:point] + "." + digits[point:]
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        text = digits[0] + ("." + digits[1:] if len(digits) > 1 else "") + "e" + format(point - 1, "+d")
    return "-" + text if sign else text


# Ed25519: the curve -x² + y² = 1 + D x² y² modulo P; a point is (X, Y, Z, T) with x = X/Z, y = Y/Z, T = XY/Z.
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)


def point(data):
    """The point of 32 bytes: y, and the lowest bit of x in the highest one."""
    number = int.from_bytes(data, "little")
    y, odd = number & (2**255 - 1), number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT_OF_MINUS_1 % P
    if len(data) != 32 or y >= P or x * x % P != square or (odd and not x):
        raise ValueError("no point of the curve")
    x = P - x if x & 1 != odd else x
    return x, y, 1, x * y % P


def added(one, other):
    a = (one[1] - one[0]) * (other[1] - other[0])
    b = (one[1] + one[0]) * (other[1] + other[0])
    c = 2 * one[3] * other[3] * D
    d = 2 * one[2] * other[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(factor, one):
    total = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            total = added(total, one)
        one, factor = added(one, one), factor >> 1
    return total


BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def signs(public, signature, message):
    """Whether `signature` is that of the public key over the message."""
    factor = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or factor >= ORDER:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    left, right = times(factor, BASE), added(point(signature[:32]), times(challenge, point(public)))
    return all((left[axis] * right[2] - right[axis] * left[2]) % P == 0 for axis in (0, 1))


def spelled(text):
    """The bytes of base64. Its last letter has bits that no byte needs, so only one spelling counts."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not base64 as it is written")
    return data


def check_signature(entry, key):
    """What is wrong with an entry's signature; None when it is sound, or when nobody was to sign."""
    data = entry["data"]
    named, signature = (data.get("signed_by") if isinstance(data, dict) else None), entry.get("signature")
    if key is not None and named != key:
        return f"it is not signed by {key}"
    if named is None and signature is None:
        return None
    if named is None or signature is None:
        return "its signature was taken away" if signature is None else "it bears a signature that nobody was to give"
    try:
        if set(signature) != {"key", "ed25519"}:
            raise ValueError("its fields are others")
        public, made = (spelled(signature[name]) for name in ("key", "ed25519"))
        if hashlib.sha256(public).hexdigest()[:16] != named:
            return f"another key than {named} signed it"
        if signs(public, made, entry["hash"].encode("ascii")):
            return None
    except (ValueError, TypeError):
        pass
    return f"its signature is not that of {named} over its hash"


def sha256(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def lines_of(path):
    """(byte offset, line with its end) for each line; only a line feed ends a line."""
    offset = 0
    for line in path.read_bytes().split(b"\n"):
        yield offset, line
        offset += len(line) + 1


def check_ledger(path, heads, key=None):
    problems, hashes, prev = [], {}, "0" * 64
    lines = list(lines_of(path))
    if lines[-1][1]:
        problems.append(f"entry {len(lines)} at byte {lines[-1][0]}: the line is torn: it has no end")
    for n, (offset, line) in enumerate(lines[:-1], start=1):
        problem, entry = check_entry(line, n, prev, key)
        if problem:
            # Nothing after a broken entry is proven any more.
            return [f"entry {n} at byte {offset}: {problem}"], n - 1, prev
        prev = hashes[n] = entry["hash"]
    for where, n, remembered in heads:
        if n is None:
            if remembered not in hashes.values():
                problems.append(f"head {remembered} ({where}) is not in the ledger")
        elif n not in hashes:
            problems.append(
                f"entry {n} is missing, {where} remembers it: the tail was cut off after entry {len(hashes)}"
            )
        elif hashes[n] != remembered:
            problems.append(f"entry {n} is another one than {where} remembers")
    return problems, len(hashes), prev


def check_entry(line, n, prev, key=None):
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict) or not FIELDS <= set(entry) <= FIELDS | {"signature"}:
            return "not the fields of an entry", None
        if canonical(entry).encode("utf-8") != line:
            return "not in canonical form: its bytes were changed", None
    except (ValueError, OverflowError, RecursionError) as fault:
        return f"not an entry: {fault}", None
    if entry["n"] != n:
        return f"it says that it is entry {entry['n']}", None
    if entry["prev"] != prev:
        return "it does not follow the entry before it", None
    if entry["hash"] != sha256(prev + sha256(canonical({name: entry[name] for name in BODY}))):
        return "its content does not have its hash", None
    return check_signature(entry, key), entry


def check_extract(path, key=None):
    problems, before, count = [], None, 0
    for offset, line in lines_of(path):
        if not line:
            continue
        count += 1
        try:
            entry = json.loads(line)
            between = entry.pop("between")
            body = sha256(canonical({name: entry[name] for name in BODY}))
            if canonical({**entry, "between": between}).encode("utf-8") != line:
                problems.append(f"line {count} at byte {offset}: not in canonical form: its bytes were changed")
            if before is not None:
                for digest in between:
                    before = sha256(before + digest)
                if entry["prev"] != before:
                    problems.append(f"line {count}: entry {entry['n']} does not follow the entry before it")
            if entry["hash"] != sha256(entry["prev"] + body):
                problems.append(f"line {count}: the content of entry {entry['n']} does not have its hash")
            if problem := check_signature(entry, key):
                problems.append(f"line {count}: entry {entry['n']}: {problem}")
            before = entry["hash"]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as fault:
            return [*problems, f"line {count} at byte {offset}: no entry of an extract ({fault})"], count, before
    return problems, count, before


def remembered(ledger):
    """(where, entry number, hash) of every head that lies beside the ledger."""
    for path in sorted(ledger.parent.glob("runs/*/audit.jsonl")):
        for _, line in lines_of(path):
            try:
                entry = json.loads(line)
                yield path.relative_to(ledger.parent).as_posix(), entry["n"], entry["hash"]
            except (ValueError, KeyError, TypeError):
                continue
    anchor = ledger.parent / "state" / "auditor" / "ledger-head.json"
    if anchor.exists():
        try:
            head = json.loads(anchor.read_bytes())
            yield anchor.relative_to(ledger.parent).as_posix(), head["n"], head["hash"]
        except (ValueError, KeyError, TypeError):
            return


def is_extract(path):
    try:
        first = json.loads(path.read_bytes().split(b"\n", 1)[0])
        return isinstance(first, dict) and "between" in first
    except ValueError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--head", action="append", default=[], help="a hash that a decision or an alert carried")
    parser.add_argument("--key", help="the key that has to have signed every entry: the start of its sha256")
    arguments = parser.parse_args()
    try:
        if is_extract(arguments.file):
            problems, count, head = check_extract(arguments.file, arguments.key)
        else:
            heads = [*remembered(arguments.file), *(("--head", None, head) for head in arguments.head)]
            problems, count, head = check_ledger(arguments.file, heads, arguments.key)
    except OSError as fault:
        print(f"{arguments.file} cannot be read: {fault}", file=sys.stderr)
        return 2
    for problem in problems:
        print(problem)
    print(f"{'NOT SOUND' if problems else 'sound'}: {count} entries, head {head}")
    return 5 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
