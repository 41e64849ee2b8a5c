#!/usr/bin/env python3
"""Runs heapcheck on damaged copies of real cores, and says what no input may do to it.

    tools/mutants.py target/release/heapcheck fixtures --mutants 3000 --seed 1

Each mutant is one core from a fixture folder (FIXTURES/RELEASE/NAME/{core,binary,truth}) with one kind of damage:

    headers   bits and numbers of the ELF header and of the program headers
    notes     bits, numbers and sizes of the notes
    words     words of writable memory: pointers, counts, bits
    cut       the file ends early
    dropped   a writable segment is not in the file (p_filesz 0)
    holed     some pages in the middle of a writable segment are not in the file (it becomes three)
    binary    bits and numbers of the program's own file

No mutant may end heapcheck by a signal or a panic, take more than --seconds or --memory, give a report that is no JSON, or an exit
status that disagrees with the report. `cut`, `dropped` and `holed` of a healthy core take memory away and damage nothing: there must be
no finding above a note. `--run leaks` (or another command; those that take an address get one) asks that command: of a core from which
memory was taken away no more may be called definitely lost than of the whole one. A mutant depends on the seed and its number alone: `--only N` makes that one again, `--keep DIR` keeps its files.
"""

import argparse
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time

PT_LOAD, PT_NOTE = 1, 4
HEADER, ENTRY, PAGE = 64, 56, 4096
ABSENT_ONLY = ("cut", "dropped", "holed")
KINDS = ("headers", "notes", "words", "binary") + ABSENT_ONLY
LIKELY = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 32, (1 << 47) - 1, 1 << 63, (1 << 64) - 1)


class Core:
    """A core file that is open for writing, and its program headers."""

    def __init__(self, path):
        self.file = open(path, "r+b")
        head = self.read(0, HEADER)
        self.table = struct.unpack_from("<Q", head, 32)[0]
        count = struct.unpack_from("<H", head, 56)[0]
        names = ("type", "flags", "offset", "address", "physical", "bytes", "memory", "align")
        self.entries = []
        for index in range(count):
            fields = struct.unpack("<IIQQQQQQ", self.read(self.table + ENTRY * index, ENTRY))
            self.entries.append(dict(zip(names, fields), at=self.table + ENTRY * index))
        self.writable = [e for e in self.entries if e["type"] == PT_LOAD and e["flags"] == 6 and e["bytes"]]

    def read(self, at, count):
        self.file.seek(at)
        return self.file.read(count)

    def write(self, at, data):
        self.file.seek(at)
        self.file.write(data)


def damage(core, draw, at, count):
    """Changes some words of the `count` bytes at `at`."""
    for _ in range(draw.choice((1, 1, 1, 2, 5, 20))):
        place = at + draw.randrange(max(1, count - 8))
        place -= place % draw.choice((1, 4, 8))
        old = core.read(place, 8).ljust(8, b"\0")
        word = struct.unpack("<Q", old)[0]
        way = draw.randrange(5)
        if way == 0:
            word ^= 1 << draw.randrange(64)
        elif way == 1:
            word = draw.choice(LIKELY)
        elif way == 2:
            word = (word + draw.choice((-4096, -16, -8, -1, 1, 8, 16, 4096))) % (1 << 64)
        elif way == 3:
            word = draw.getrandbits(64)
        elif core.writable:
            segment = draw.choice(core.writable)
            word = segment["address"] + draw.randrange(segment["memory"]) // 8 * 8
        core.write(place, struct.pack("<Q", word))


def hole(core, draw):
    """Cuts a writable segment in three of which the middle one is not in the file."""
    large = [e for e in core.writable if e["bytes"] >= 3 * PAGE]
    if not large:
        return
    entry = draw.choice(large)
    first = draw.randrange(1, entry["bytes"] // PAGE - 1)
    count = draw.randrange(1, min(16, entry["bytes"] // PAGE - first))  if entry["bytes"] // PAGE - first > 1 else 1
    start, end = first * PAGE, (first + count) * PAGE
    parts = []
    for old in core.entries:
        if old is not entry:
            parts.append(old)
            continue
        for low, high, held in ((0, start, True), (start, end, False), (end, old["memory"], True)):
            size = high - low
            kept = min(high, old["bytes"]) - low if held else 0
            moved = {"offset": old["offset"] + low, "address": old["address"] + low, "bytes": max(0, kept), "memory": size}
            parts.append({**old, **moved})
    core.file.seek(0, os.SEEK_END)
    table = (core.file.tell() + 7) // 8 * 8
    names = ("type", "flags", "offset", "address", "physical", "bytes", "memory", "align")
    core.write(table, b"".join(struct.pack("<IIQQQQQQ", *(part[name] for name in names)) for part in parts))
    core.write(32, struct.pack("<Q", table))
    core.write(56, struct.pack("<H", len(parts)))


def mutate(kind, core_path, binary_path, draw):
    core = Core(core_path)
    if kind == "headers":
        table = ENTRY * len(core.entries)
        damage(core, draw, *draw.choice(((0, HEADER), (core.table, table), (core.table, table))))
    elif kind == "notes":
        note = next((e for e in core.entries if e["type"] == PT_NOTE), None)
        if note:
            damage(core, draw, note["offset"], note["bytes"])
    elif kind == "words":
        entry = draw.choice(core.writable)
        damage(core, draw, entry["offset"], entry["bytes"])
    elif kind == "cut":
        size = os.path.getsize(core_path)
        first = min(e["offset"] for e in core.writable)
        core.file.truncate(draw.randrange(min(first, size - 1), size))
    elif kind == "dropped":
        core.write(draw.choice(core.writable)["at"] + 32, struct.pack("<Q", 0))
    elif kind == "holed":
        hole(core, draw)
    core.file.close()
    if kind == "binary":
        size = os.path.getsize(binary_path)
        with open(binary_path, "r+b") as file:
            for _ in range(draw.choice((1, 3, 30))):
                place = draw.choice((draw.randrange(HEADER), draw.randrange(min(size, 4096)), draw.randrange(size)))
                file.seek(place)
                file.write(bytes([draw.getrandbits(8)]))


def address(core_path, draw):
    """One of the process's writable memory."""
    entry = draw.choice(Core(core_path).writable)
    return entry["address"] + draw.randrange(entry["memory"]) // 8 * 8


def definite(report):
    """Bytes that nobody points at."""
    leaks = report.get("leaks") or {}
    return sum(leaks.get(part, {}).get("bytes", 0) for part in ("definite", "indirect"))


def whole_definite(options, core, binary, known={}):
    """The same of a core as it was."""
    if core not in known:
        command = [options.heapcheck, "leaks", "--format", "json", core, binary]
        known[core] = definite(json.loads(subprocess.run(command, capture_output=True).stdout))
    return known[core]


def complaints(run, options, is_absent_only, of_whole):
    """What is wrong with an answer."""
    if run is None:
        return ["time: not done in %d s" % options.seconds]
    errors = []
    status, out, err = run
    if status < 0:
        errors.append("ended by signal %d" % -status)
    if b"panicked" in err or status == 101:
        errors.append("panic: " + err.decode(errors="replace").strip().splitlines()[0])
    if status not in (0, 1, 2, 3):
        errors.append("exit status %d" % status)
    try:
        report = json.loads(out)
    except ValueError as error:
        return errors + ["no JSON: %s" % error]
    findings = report.get("findings") or []
    critical = any(finding["severity"] == "critical" for finding in findings)
    if critical != (status == 1) and status != 2 and options.run == "check":
        errors.append("exit status %d with%s a critical finding" % (status, "" if critical else "out"))
    if is_absent_only:
        loud = [finding for finding in findings if finding["severity"] != "note"]
        errors += ["alarm: " + finding["kind"] + ": " + finding["message"][:120] for finding in loud[:1]]
        if options.run == "leaks" and definite(report) > of_whole:
            errors.append("%d bytes definitely lost, %d of the whole core" % (definite(report), of_whole))
    return errors


def main():
    parser = argparse.ArgumentParser(description="Runs heapcheck on damaged copies of real cores")
    parser.add_argument("heapcheck")
    parser.add_argument("fixtures")
    parser.add_argument("--mutants", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="make and run this one only")
    parser.add_argument("--keep", help="a folder for the files of mutants with complaints")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--memory", type=int, default=4096, help="MiB of address space")
    parser.add_argument("--run", default="check", help="the command: check, leaks, refs, ...")
    parser.add_argument("--largest", type=int, default=64, help="MiB of the largest core that is taken")
    options = parser.parse_args()

    chosen = []
    for release in sorted(os.listdir(options.fixtures)):
        folder = os.path.join(options.fixtures, release)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            paths = [os.path.join(folder, name, part) for part in ("core", "binary", "truth")]
            if all(map(os.path.isfile, paths)) and os.path.getsize(paths[0]) <= options.largest << 20:
                with open(paths[0], "rb") as core, open(paths[2], errors="replace") as truth:
                    if core.read(4) == b"\x7fELF":
                        chosen.append((paths[0], paths[1], not any(mark in truth.read() for mark in ("EXPECT", "OTHER"))))
    healthy = [fixture for fixture in chosen if fixture[2]]
    if not healthy:
        sys.exit("no fixtures in " + options.fixtures)

    limit = options.memory << 20
    tally = {kind: {"mutants": 0, "complaints": 0, "slowest": 0.0} for kind in KINDS}
    statuses = {}
    numbers = range(options.mutants) if options.only is None else [options.only]
    with tempfile.TemporaryDirectory() as folder:
        core, binary = os.path.join(folder, "core"), os.path.join(folder, "binary")
        for number in numbers:
            draw = random.Random("%d/%d" % (options.seed, number))
            kind = KINDS[number % len(KINDS)]
            source, program, _ = draw.choice(healthy if kind in ABSENT_ONLY else chosen)
            shutil.copyfile(source, core)
            shutil.copyfile(program, binary)
            try:
                mutate(kind, core, binary, draw)
            except (IndexError, ValueError):
                continue  # nothing to damage in this way
            command = [options.heapcheck, options.run, "--format", "json", core]
            command += [binary] if kind == "binary" or draw.random() < 0.7 else ["--no-default-paths", "--locate", "structure"]
            if options.run in ("refs", "inspect"):
                command.append("0x%x" % address(source, draw))
            before = time.monotonic()
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    timeout=options.seconds,
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
                )
                run = (done.returncode, done.stdout, done.stderr)
                statuses[done.returncode] = statuses.get(done.returncode, 0) + 1
            except subprocess.TimeoutExpired:
                run = None
            except KeyboardInterrupt:
                break  # what was done so far counts
            seconds = time.monotonic() - before
            row = tally[kind]
            row["mutants"] += 1
            row["slowest"] = max(row["slowest"], seconds)
            is_absent_only = kind in ABSENT_ONLY
            of_whole = whole_definite(options, source, program) if is_absent_only and options.run == "leaks" else 0
            errors = complaints(run, options, is_absent_only, of_whole)
            if errors:
                row["complaints"] += 1
                print("%d %s %s: %s" % (number, kind, source, "; ".join(errors)), flush=True)
                if options.keep:
                    kept = os.path.join(options.keep, str(number))
                    os.makedirs(kept, exist_ok=True)
                    shutil.copy(core, kept)
                    shutil.copy(binary, kept)

    print("| damage | mutants | complaints | slowest |\n|---|---:|---:|---:|")
    for kind, row in tally.items():
        print("| %s | %d | %d | %.1f s |" % (kind, row["mutants"], row["complaints"], row["slowest"]))
    print("exit statuses: " + ", ".join("%d: %d" % pair for pair in sorted(statuses.items())))
    sys.exit(any(row["complaints"] for row in tally.values()))


if __name__ == "__main__":
    main()
