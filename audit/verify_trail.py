#!/usr/bin/env python3
"""Checks a trail, independently of the server: verify_trail.py [head=SEQ:SHA256]... FILE..."""
import hashlib, json, re, sys

def links(name):
    lines = open(name, "rb").read().split(b"\n")
    if lines.pop() != b"":
        sys.exit(f"{name}:{len(lines) + 1}: torn")
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line.decode())
            match = re.fullmatch(rb'(\{"seq":%d,".*,"prev":"([0-9a-f]{64})"),"check":"([0-9a-f]{16})"\}' % entry["seq"], line)
            if not match or hashlib.sha256(match[1]).hexdigest()[:16] != match[3].decode():
                raise ValueError("changed, or not a line of a trail")
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"{name}:{number}: {error}")
        yield f"{name}:{number}", entry["seq"], match[2].decode(), hashlib.sha256(line).hexdigest()

heads = {}
for head in (arg[5:].split(":") for arg in sys.argv[1:] if arg.startswith("head=")):
    heads.setdefault(int(head[0]), set()).add(head[1])
files = [list(links(name)) for name in sys.argv[1:] if not name.startswith("head=")]
last = None
for where, sequence, previous, digest in sum(sorted((f for f in files if f), key=lambda f: f[0][1]), []):
    if last and sequence != last[0] + 1:
        sys.exit(f"{where}: seq {sequence} after {last[0]}")
    first = first if last else sequence
    before = {last[1]} if last else {"0" * 64} if sequence == 1 else heads.get(sequence - 1, {previous})
    if before != {previous}:
        sys.exit(f"{where}: prev is not the digest of the line before")
    if heads.get(sequence, {digest}) != {digest}:
        sys.exit(f"{where}: is not the head that was logged")
    last = (sequence, digest)
if heads and last and max(heads) < first - 1:
    sys.exit(f"starts with {first}: nothing vouches for it, all heads are before")
if not last or any(sequence > last[0] for sequence in heads):
    sys.exit("lines are missing at the end")
print(f"ok: ends with {last[0]}:{last[1]}")
