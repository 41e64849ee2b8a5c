#!/usr/bin/env python3
"""Where the value at fault came from: heapcheck's answer against the truth of programs of testdata/causes.

    tools/provenance.py [--set provenance|fresh|second|third|fourth] [--heapcheck FILE] [--csv FILE] [--show] [--case NAME]

Each case is built with -O0 and -O2, and runs with three allocators, alone and beside an overrun that nobody meets. Prints two
tables: the confusion matrix, and the ends of the chains. Needs a kernel that writes `core` into the working directory."""
import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import resource
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
ALLOCATORS = {"glibc": None, "gperftools": "libtcmalloc_minimal.so.4", "jemalloc": "libjemalloc.so.2"}
KINDS = {
    "uninitialised-use": "uninitialised",
    "dangling-reference": "freed",
    "use-after-free-write": "freed",
    "heap-overrun": "overrun",
    "heap-underrun": "overrun",
    "double-free": "refused",
    "invalid-free-entry": "refused",
    "misaligned-free-entry": "refused",
    "allocator-mismatch": "refused",
    "stack-overflow": "stack",
    "aliased-block": "aliased",
}


def died(program, arguments, library, folder):
    environment = dict(os.environ)
    if library:
        environment["LD_PRELOAD"] = f"{LIBRARIES}/{library}"
    unlimited = lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    run = subprocess.run([program, *arguments], cwd=folder, env=environment, preexec_fn=unlimited, capture_output=True)
    truth = collections.defaultdict(list)
    for line in run.stdout.decode().splitlines():
        key, _, value = line.partition(" ")
        truth[key].append(value)
    cores = [path for path in pathlib.Path(folder).iterdir() if path.name.startswith("core")]
    return truth, cores[0] if cores else None


def answer(report):
    """The class that is told, the blocks and the words that are named, and the findings that are said to explain the crash."""
    yes = [finding for finding in report["findings"] if finding["explains_crash"] == "yes"]
    named = [finding for finding in report["findings"] if finding["kind"] in ("dangling-reference", "uninitialised-use")]
    came = report["crash_info"].get("came_from")
    blocks, words = set(), set()
    for finding in yes or named:
        for part in (finding["block"], finding["culprit"]):
            if part:
                blocks.add(part["address"])
        words.update(step["address"] for step in finding.get("causes", []) if step["address"])
    if came:
        words.add(came.get("address"))
        if came.get("block"):
            blocks.add(came["block"]["address"])
    if yes or named:
        kind = (yes or named)[0]["kind"]
        told = KINDS.get(kind, kind)
    elif came:
        told = "null" if int(came["value"], 16) < 0x10000 else "wild"
    else:
        told = "not told"
    return told, blocks, words, yes


SETS = {"provenance": ["provenance.cc"], "fresh": ["fresh.cc", "fresh.rs"], "second": ["second.c", "second.cc", "second.rs"],
        "third": ["third.cc"], "fourth": ["fourth.cc", "fourth.rs"]}
# The classes that an error which is said to explain the crash may have: a block that was freed twice may be told as written to since.
EXPECTED = {"overrun": ("overrun", "freed"), "own": (), "null": (), "wild": (), "aliased": ("aliased", "refused"), "refused": ("refused", "freed")}


def built(source, level, folder):
    """A source, built with a level of optimisation, and the names of its cases."""
    program = f"{folder}/{source.stem}{source.suffix[1:]}{level}"
    if source.suffix == ".rs":
        command = ["rustc", "--edition", "2024", "-g", "-C", "debug-assertions=off", "-C", f"opt-level={level[2]}", "-o", program, source]
        names = re.findall(r'\("([a-z_]+)", [a-z_]+\),', source.read_text())
    else:
        compiler = ["gcc"] if source.suffix == ".c" else ["g++", "-std=c++20"]
        command = [*compiler, "-g", "-w", level, "-pthread", "-o", program, source]
        names = re.findall(r"CASE\(([a-z_]+)\)", source.read_text())
    subprocess.run(command, check=True)
    return program, names


def judged(heapcheck, program, number, library, mode):
    """One crash: its class, what is told, how right its end is, and the report; none where the allocator does not mind."""
    with tempfile.TemporaryDirectory() as folder:
        more = ["beside"] if mode == "beside" else []
        truth, core = died(program, [str(number), *more], library, folder)
        if core is None:
            return None
        text = subprocess.run([heapcheck, core, program, "--format", "json"], capture_output=True)
        report = json.loads(text.stdout)
    is_class = truth["CLASS"][-1]
    told, blocks, words, yes = answer(report)
    is_end = any(block in blocks for block in truth["BLOCK"]) or any(word in words for word in truth["WORD"])
    if not truth["BLOCK"] and not truth["WORD"]:
        is_end = told == is_class or (is_class == "own" and not yes)
    # An error is said to explain the crash, and it is another one.
    wrong = bool(yes) and told not in EXPECTED.get(is_class, (is_class,))
    if truth["BLOCK"] and yes and blocks and not any(block in blocks for block in truth["BLOCK"]):
        wrong = True
    kind = "own" if is_class == "own" and not yes else told
    end = "wrong yes" if wrong else "named" if is_end else "not told"
    return is_class, kind, end, report, truth


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--heapcheck", default=ROOT / "target/debug/heapcheck")
    options.add_argument("--set", choices=SETS, default="provenance")
    options.add_argument("--csv")
    options.add_argument("--show", action="store_true", help="each answer that is not right")
    options.add_argument("--case", default="", help="only cases whose names have this")
    options = options.parse_args()
    matrix, ends, rows = collections.Counter(), collections.Counter(), []
    with tempfile.TemporaryDirectory() as build:
        runs = []
        for source in SETS[options.set]:
            for level in ("-O0", "-O2"):
                program, names = built(ROOT / "testdata/causes" / source, level, build)
                for number, name in enumerate(names):
                    if options.case in name:
                        places = [(allocator, mode) for allocator in ALLOCATORS for mode in ("alone", "beside")]
                        runs += [(program, number, name, level, allocator, mode) for allocator, mode in places]

        def of(run):
            program, number, _, _, allocator, mode = run
            return judged(options.heapcheck, program, number, ALLOCATORS[allocator], mode)

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as workers:
            answers = list(workers.map(of, runs))
    for (_, _, name, level, allocator, mode), judgement in zip(runs, answers):
        if judgement is None:
            continue
        is_class, kind, end, report, truth = judgement
        if mode == "alone":
            matrix[is_class, kind] += 1
        ends[mode, end] += 1
        rows.append((name, level, allocator, mode, is_class, kind, end))
        if options.show and (end != "named" or kind != is_class):
            print(f"{name} {level} {allocator} {mode}: {is_class}, told {kind}: {end}")
            for finding in report["findings"]:
                print(f"    {finding['kind']} {finding['explains_crash']}: {finding['message'][:230]}")
            print(f"    came from {json.dumps(report['crash_info'].get('came_from'))[:300]}")
            print(f"    truth {dict(truth)}")
    classes = list(dict.fromkeys(row[4] for row in rows))
    columns = classes + sorted({row[5] for row in rows} - set(classes))
    print("| truth | " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * len(columns))
    for is_class in classes:
        print(f"| {is_class} | " + " | ".join(str(matrix[is_class, kind] or "") for kind in columns) + " |")
    for mode in ("alone", "beside"):
        counts = {end: ends[mode, end] for end in ("named", "not told", "wrong yes")}
        print(f"{mode}: {sum(counts.values())} crashes, {counts}")
    if options.csv:
        with open(options.csv, "w", encoding="utf-8") as file:
            print("set,case,level,allocator,mode,truth,told,end", file=file)
            for row in rows:
                print(",".join((options.set, *row)), file=file)


if __name__ == "__main__":
    main()
