#!/usr/bin/env python3
"""Holds the rules of seccomp/x86_64.json against a trace of system calls.

Reads `perf script --fields comm,pid,tid,event,trace` from standard input. A call
counts for the role of its thread from the last seccomp(2) of that thread on;
before, for the filter `base`, once that stands. Writes a table of role, call,
conditions and how often it was seen, to the file named or to standard output.
Exits 1 if a rule was not seen and doesn't say why in "unseen".
"""
import collections
import json
import re
import sys

LINE = re.compile(r"^\s*(\S.*?)\s+(\d+)/(\d+)\s+raw_syscalls:sys_(enter|exit): NR (\d+) (.*)$")
SECCOMP, EXIT, EXIT_GROUP = 317, 60, 231
OWN_PROCESS = 0x5E1F5E1F
FILTERS_OF_BASE = 2  # no_clone3, base
ROLES = [
    (re.compile(r"^(secure_socket|sandbox_walls)"), "base"),
    (re.compile(r"^echo[-_]"), "echo_worker"),
    (re.compile(r"^relay[-_]"), "relay_worker"),
    (re.compile(r"^broker[-_]"), "broker_worker"),
    (re.compile(r"^embedded[-_]"), "embedded_worker"),
    (re.compile(r"^(log-writer|log_writer|trail)$"), "log_writer"),
    (re.compile(r"^log[-_]compress"), "log_compressor"),
    (re.compile(r"^process[-_]"), "process_checker"),
    (re.compile(r"^connector$"), "connector"),
    (re.compile(r"^resolver$"), "resolver"),
    (re.compile(r"^metrics"), "metrics"),
]


def role_of(comm):
    return next((role for pattern, role in ROLES if pattern.match(comm)), None)


class Thread:
    """One life of a thread id."""

    def __init__(self, pid):
        self.pid = pid
        self.filters = 0
        self.waiting = []  # since the last filter, or the start


def read(lines):
    """Counts (role, number, arguments or None) from the trace."""
    seen = collections.Counter()
    lives = {}

    def settle(thread, role):
        for number, arguments in thread.waiting:
            seen[role, number, arguments] += 1
        thread.waiting = []

    def end(tid):
        thread = lives.pop(tid, None)
        if thread is None:
            return
        role = thread.role
        if role == "base":
            # The main thread counts from its own filters on.
            if thread.filters >= FILTERS_OF_BASE:
                settle(thread, "base")
        elif role is not None and thread.filters > 0:
            settle(thread, role)

    for line in lines:
        match = LINE.match(line)
        if not match:
            continue
        comm, pid, tid, side, number, rest = match.groups()
        pid, tid, number = int(pid), int(tid), int(number)
        thread = lives.get(tid)
        if thread is None or thread.pid != pid:
            end(tid)
            thread = lives[tid] = Thread(pid)
        thread.role = role_of(comm)
        if side == "exit":
            thread.waiting.append((number, None))
            continue
        arguments = tuple(int(word, 16) for word in rest.strip("()").split(", "))
        if number == SECCOMP and arguments[0] == 1:
            if tid != pid and thread.role not in ("process_checker", "connector", "resolver", None):
                # Born behind base: what it did until here was base's to allow.
                thread.waiting.append((number, arguments))
                settle(thread, "base")
            elif tid == pid and thread.filters >= FILTERS_OF_BASE:
                settle(thread, "base")
            thread.filters += 1
            thread.waiting = []
            continue
        # Many calls differ in pointers only: keep what a condition may look at.
        key = (number, arguments)
        if len(thread.waiting) < 200_000 or number in (EXIT, EXIT_GROUP):
            thread.waiting.append(key)
        if len(thread.waiting) >= 100_000 and thread.filters >= FILTERS_OF_BASE:
            settle(thread, thread.role)
        if number in (EXIT, EXIT_GROUP):
            end(tid)
    for tid in list(lives):
        end(tid)
    return seen


def numbers(path):
    table = {}
    for line in open(path):
        if not line.startswith("#"):
            name, number = line.split()[:2]
            if number.isdigit():
                table[name] = int(number)
    return table


def holds(condition, arguments, own):
    value, op = condition["val"], condition["op"]
    found = arguments[condition["index"]]
    if value == OWN_PROCESS:
        return True  # the id of the process, whatever it was
    mask = (1 << 64) - 1 if condition["type"] == "qword" else (1 << 32) - 1
    if op != "eq":
        mask &= op["masked_eq"]
    return found & mask == value & mask


def text(rule):
    words = []
    for c in rule.get("args", []):
        if c["val"] == OWN_PROCESS:
            words.append(f"arg{c['index']} own process")
        elif c["op"] == "eq":
            words.append(f"arg{c['index']} = {c['val']}")
        else:
            words.append(f"arg{c['index']} & {c['op']['masked_eq']} = {c['val']}")
    return ", ".join(words)


def main():
    rules = json.load(open("seccomp/x86_64.json"))
    table = numbers("seccomp/calls.txt")
    seen = read(sys.stdin)
    by_call = collections.defaultdict(list)
    for (role, number, arguments), count in seen.items():
        by_call[role, number].append((arguments, count))
    out, unexplained = [], []
    for role, spec in rules["filters"].items():
        if "answer" in spec:
            continue
        for group in spec["groups"]:
            for rule in rules["groups"][group]["rules"]:
                number = table[rule["syscall"]]
                conditions = rule.get("args", [])
                count = sum(
                    count
                    for arguments, count in by_call[role, number]
                    if arguments is None or all(holds(c, arguments, None) for c in conditions)
                )
                why = rule.get("unseen", {})
                why = why.get(role, why.get("all")) if isinstance(why, dict) else why
                if count:
                    standing = "seen"
                elif why:
                    standing = f"not here: {why}"
                else:
                    standing = "NEVER SEEN"
                    unexplained.append(f"{role}: {rule['syscall']} {text(rule)} ({rule['comment']})")
                out.append("\t".join([role, rule["syscall"], text(rule), standing]))
    page = "# Made by audit/trace: filter, call, conditions, whether a thread of that role made it.\n"
    page += "\n".join(out) + "\n"
    if len(sys.argv) > 1:
        open(sys.argv[1], "w").write(page)
    else:
        sys.stdout.write(page)
    for line in unexplained:
        print("never seen:", line, file=sys.stderr)
    print(f"{sum(seen.values())} calls, {len(out)} rules, {len(unexplained)} never seen", file=sys.stderr)
    sys.exit(1 if unexplained else 0)


main()
