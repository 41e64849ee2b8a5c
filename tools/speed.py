#!/usr/bin/env python3
"""What heapcheck costs where heaps are awkward or big: processor time and own memory, beside `cat` of the same core.

    tools/speed.py OUTDIR [--program PROGRAM ...] [--case NAME ...] [--runs N]
    tools/speed.py OUTDIR --scale [--svg FILE] [--gigabytes 0.25,1,4,16] [--threads 1,100,1000,10000]
    tools/speed.py OUTDIR --graph [--gigabytes 0.25,1,4]

Cores are made in OUTDIR by testdata/speed.c and testdata/generate-heap.sh and stay there (with --scale they go once they are
measured: 16 GB of core want as much of the disk). Several programs, before and after a change, are measured in turn on the same cores.
Figures are user + system seconds, the best of N runs, the file in the page cache but for holes: on a machine that others use as well,
the clock tells little. "memory" is the peak of anonymous pages: the mapped core is not counted.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MIB = 1 << 20


def measure(command, runs):
    """Best processor seconds, seconds of the clock, and peak of anonymous memory in MiB."""
    best, clock, memory = float("inf"), float("inf"), 0
    for _ in range(runs):
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peak = [0]

        def watch(pid=process.pid, peak=peak):
            try:
                while True:
                    with open(f"/proc/{pid}/status") as status:
                        own = [line for line in status if line.startswith("RssAnon")]
                    if not own:
                        return
                    peak[0] = max(peak[0], int(own[0].split()[1]))
                    time.sleep(0.002)
            except OSError:
                return

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
        watcher.join()
        best = min(best, used.ru_utime + used.ru_stime)
        clock = min(clock, time.monotonic() - started)
        memory = max(memory, peak[0] / 1024)
    return best, clock, memory


def dump(directory, command, environment=None):
    """Runs a program that aborts; where its core lies."""
    run = os.path.join(directory, "run")
    shutil.rmtree(run, ignore_errors=True)
    os.makedirs(run)
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    subprocess.run(command, cwd=run, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    left = os.listdir(run)
    if len(left) != 1:
        sys.exit(f"{' '.join(command)} left no core: set kernel.core_pattern to 'core'")
    core = os.path.join(directory, "core")
    os.replace(os.path.join(run, left[0]), core)
    shutil.rmtree(run)
    return core


def compiled(outdir):
    binary = os.path.join(outdir, "speed")
    source = os.path.join(ROOT, "testdata", "speed.c")
    subprocess.run(["gcc", "-std=gnu11", "-O2", "-g", "-o", binary, source, "-pthread"], check=True)
    return binary


def awkward(outdir, *arguments, environment=None):
    directory = os.path.join(outdir, "-".join(arguments))
    core = os.path.join(directory, "core")
    binary = os.path.join(outdir, "speed")
    if not os.path.exists(core):
        os.makedirs(directory, exist_ok=True)
        dump(directory, [binary, *arguments], environment)
    return core, binary


def big(outdir, release, gigabytes, threads=4):
    directory = os.path.join(outdir, f"{release or 'tcmalloc'}-{gigabytes:g}-{threads}")
    if not os.path.exists(os.path.join(directory, "core")):
        script = os.path.join(ROOT, "testdata", "generate-heap.sh")
        environment = {**os.environ, **({"RELEASE": release} if release else {})}
        command = [script, directory, str(gigabytes), str(6 * gigabytes), str(threads)]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return os.path.join(directory, "core"), os.path.join(directory, "binary")


def python_threads(outdir, count):
    """Threads of Python that stand deep in calls through C."""
    directory = os.path.join(outdir, f"python-{count}")
    core, python = os.path.join(directory, "core"), os.path.realpath("/usr/bin/python3")
    if not os.path.exists(core):
        text = (
            "import threading, os, time\n"
            "def deep(left):\n"
            "    if left == 0:\n"
            "        barrier.wait()\n"
            "        time.sleep(1000)\n"
            "    list(map(deep, [left - 1]))\n"
            f"barrier = threading.Barrier({count} + 1)\n"
            "threading.stack_size(1 << 20)\n"
            f"for _ in range({count}):\n"
            "    threading.Thread(target=deep, args=(30,), daemon=True).start()\n"
            "barrier.wait()\n"
            "time.sleep(1)\n"
            "os.abort()\n"
        )
        os.makedirs(directory, exist_ok=True)
        dump(directory, [python, "-c", text])
    return core, python


def packed(outdir):
    core, binary = big(outdir, None, 1)
    archive = core + ".zst"
    if not os.path.exists(archive):
        subprocess.run(["zstd", "-q", "-T0", core, "-o", archive], check=True)
    return archive, binary


PLAIN = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
CASES = {
    "holes": ("80 untouched blocks of 100 MB", lambda out: awkward(out, "holes", "80")),
    "mapped": ("the same, with mappings of their own", lambda out: awkward(out, "mapped", "80")),
    "small": ("60,000 blocks", lambda out: awkward(out, "small", "60000")),
    "fastbin": ("a fastbin of 10,000,000, in random order", lambda out: awkward(out, "fastbin", "10000000", environment=PLAIN)),
    "arenas": ("3,000 arenas, their threads gone", lambda out: awkward(out, "arenas", "3000")),
    "own": ("3,000 arenas of as many threads", lambda out: awkward(out, "own", "3000")),
    "python": ("1,000 threads of Python", lambda out: python_threads(out, 1000)),
    "zst": ("1 GB of tcmalloc, packed by zstd", packed),
    "tcmalloc": ("1 GB of tcmalloc", lambda out: big(out, None, 1)),
    "jemalloc": ("1 GB of jemalloc", lambda out: big(out, "jemalloc-5.3.0", 1)),
    "ptmalloc": ("1 GB of ptmalloc", lambda out: big(out, "glibc-2.36", 1)),
}


def forget_holes(core):
    """What was read of a file's holes leaves the page cache."""
    with open(core) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare(options):
    print(f"{'case':<44}{'program':<28}{'CPU s':>8}{'clock s':>9}{'memory MiB':>12}{'x cat':>8}")
    for name in options.case or CASES:
        what, make = CASES[name]
        core, binary = make(options.outdir)
        is_sparse = os.stat(core).st_blocks * 512 < os.path.getsize(core) // 2
        reference = ["zstd", "-q", "-d", "-f", core, "-o", os.path.join(options.outdir, "unpacked")] if name == "zst" else ["cat", core]
        base = None
        if not is_sparse:
            base, clock, _ = measure(reference, options.runs)
            print(f"{what:<44}{' '.join(reference[:1]):<28}{base:>8.3f}{clock:>9.3f}")
        for program in options.program:
            if is_sparse:
                forget_holes(core)
            seconds, clock, memory = measure([program, core, binary], 1 if is_sparse and name in ("holes", "mapped") else options.runs)
            ratio = f"{seconds / base:>8.2f}" if base else ""
            print(f"{what:<44}{program[-26:]:<28}{seconds:>8.3f}{clock:>9.3f}{memory:>12.1f}{ratio}", flush=True)
    unpacked = os.path.join(options.outdir, "unpacked")
    if os.path.exists(unpacked):
        os.remove(unpacked)


def scale(options):
    """Time and memory over size and over threads, as a table and a plot."""
    program, curves = options.program[0], []
    for allocator, release in (("tcmalloc", None), ("jemalloc", "jemalloc-5.3.0"), ("ptmalloc", "glibc-2.36")):
        points = []
        for size in options.gigabytes:
            needed = size * (1 << 30) * 1.1
            if shutil.disk_usage(options.outdir).free - needed < 4 << 30:
                print(f"{allocator}, {size:g} GB: the disk has no room for it", file=sys.stderr)
                continue
            core, binary = big(options.outdir, release, size)
            runs = options.runs if size <= 1 else 2
            base, _, _ = measure(["cat", core], runs)
            seconds, _, memory = measure([program, core, binary], runs)
            points.append((size, seconds, memory, base))
            shutil.rmtree(os.path.dirname(core))
        curves.append((allocator, "GB", points))
    points = []
    for count in options.threads:
        core, binary = awkward(options.outdir, "threads", str(count))
        seconds, _, memory = measure([program, core, binary], options.runs)
        points.append((count, seconds, memory, None))
        shutil.rmtree(os.path.dirname(core))
    curves.append(("threads", "threads", points))
    print("| heap | size | CPU s | `cat`, CPU s | own memory, MiB |")
    print("|---|---|---|---|---|")
    for name, unit, points in curves:
        for size, seconds, memory, base in points:
            beside = f"{base:.2f}" if base else ""
            name_of = "ptmalloc" if unit == "threads" else name
            print(f"| {name_of} | {size:,g} {unit} | {seconds:.2f} | {beside} | {memory:.0f} |")
    if options.svg:
        with open(options.svg, "w") as file:
            file.write(plot(curves))


def graph(options):
    """What the passes over all pointers cost beyond the check, and how that grows: beside `cat` of the same core."""
    program = options.program[0]
    print("| heap | size | `cat`, CPU s | check | `refs`, 1 address | `refs`, 1,000 | `leaks` | own memory of `leaks`, MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for allocator, release in (("tcmalloc", None), ("jemalloc", "jemalloc-5.3.0"), ("ptmalloc", "glibc-2.36")):
        for size in options.gigabytes:
            if shutil.disk_usage(options.outdir).free - size * (1 << 30) * 1.1 < 4 << 30:
                print(f"{allocator}, {size:g} GB: the disk has no room for it", file=sys.stderr)
                continue
            core, binary = big(options.outdir, release, size)
            runs = options.runs if size <= 1 else 1
            base, _, _ = measure(["cat", core], runs)
            check, _, _ = measure([program, "--threads", "1", core, binary], runs)
            several = addresses(program, core, binary, 1000)
            rows = [f"{base:.2f}", f"{check:.2f} ({check / base:.1f})"]
            for asked in (several[:1], several):
                seconds, _, _ = measure([program, "refs", "--threads", "1", core, binary, *asked], runs)
                rows.append(f"{seconds:.2f} (+ {(seconds - check) / base:.1f})")
            seconds, _, memory = measure([program, "leaks", "--threads", "1", core, binary], runs)
            rows += [f"{seconds:.2f} (+ {(seconds - check) / base:.1f})", f"{memory:.0f}"]
            print(f"| {allocator} | {size:g} GB | {' | '.join(rows)} |", flush=True)
            shutil.rmtree(os.path.dirname(core))


def addresses(program, core, binary, count):
    """Addresses of blocks, as `usage` names the largest, and places in their neighbourhood."""
    import json

    answer = subprocess.run([program, "usage", "--format", "json", core, binary], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    blocks = [int(block["address"], 16) for block in json.loads(answer.stdout)["usage"]["largest"]]
    return [hex(blocks[at % len(blocks)] + 4096 * (at // len(blocks))) for at in range(count)]


def plot(curves):
    """Four panels on logarithmic axes, where what is linear is a line of slope one, which is drawn grey."""
    import math

    width, height, edge = 340, 240, 56
    colours = {"tcmalloc": "#1b6ca8", "jemalloc": "#c8553d", "ptmalloc": "#3a7d44", "threads": "#3a7d44"}
    sizes = [curve for curve in curves if curve[1] == "GB" and curve[2]]
    threads = [curve for curve in curves if curve[1] == "threads" and curve[2]]
    panels = [
        ("processor seconds by GB of core", sizes, 1),
        ("own memory, MiB, by GB of core", sizes, 2),
        ("processor seconds by threads", threads, 1),
        ("own memory, MiB, by threads", threads, 2),
    ]
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width} {2 * height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{2 * width}" height="{2 * height}" fill="white"/>',
    ]
    for number, (title, shown, column) in enumerate(panels):
        if not shown:
            continue
        left, top = number % 2 * width, number // 2 * height
        values = [(point[0], max(point[column], 0.001)) for _, _, points in shown for point in points]
        low_x, high_x = math.log10(min(x for x, _ in values)), math.log10(max(x for x, _ in values))
        low_y = math.floor(math.log10(min(y for _, y in values)))
        high_y = math.ceil(math.log10(max(y for _, y in values)))
        if high_x == low_x:
            high_x += 1
        if high_y == low_y:
            high_y += 1

        def place(x, y):
            return (
                left + edge + (math.log10(x) - low_x) / (high_x - low_x) * (width - edge - 20),
                top + height - 36 - (math.log10(y) - low_y) / (high_y - low_y) * (height - 76),
            )

        out.append(f'<text x="{left + edge}" y="{top + 18}" font-weight="bold">{title}</text>')
        for power in range(low_y, high_y + 1):
            x, y = place(10**low_x, 10.0**power)
            out.append(f'<line x1="{x:.1f}" x2="{left + width - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            out.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
        for x_value in sorted({x for x, _ in values}):
            x, y = place(x_value, 10.0**low_y)
            out.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{x_value:,g}</text>')
        for index, (name, _, points) in enumerate(shown):
            line = [place(point[0], max(point[column], 0.001)) for point in points]
            # Through the last point, as steep as what is linear.
            last = points[-1]
            first = max(points[0][0], last[0] * 10.0**low_y / max(last[column], 0.001))
            linear = [place(first, last[column] * first / last[0]), line[-1]]
            for style, dots in (('stroke="#aaa" stroke-dasharray="3 3"', linear), (f'stroke="{colours[name]}" stroke-width="2"', line)):
                text = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
                out.append(f'<polyline points="{text}" fill="none" {style}/>')
            for x, y in line:
                out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colours[name]}"/>')
            if len(shown) > 1:
                out.append(f'<text x="{left + edge + 8}" y="{top + 34 + 13 * index}" fill="{colours[name]}">{name}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    numbers = lambda kind: lambda text: [kind(part) for part in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outdir")
    parser.add_argument("--program", action="append", help="target/release/heapcheck if not given")
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--graph", action="store_true")
    parser.add_argument("--svg")
    parser.add_argument("--gigabytes", type=numbers(float), default=[0.25, 1, 4, 16])
    parser.add_argument("--threads", type=numbers(int), default=[1, 100, 1000, 10000])
    options = parser.parse_args()
    options.program = options.program or [os.path.join(ROOT, "target", "release", "heapcheck")]
    options.program = [os.path.abspath(program) for program in options.program]
    os.makedirs(options.outdir, exist_ok=True)
    options.outdir = os.path.abspath(options.outdir)
    compiled(options.outdir)
    (scale if options.scale else graph if options.graph else compare)(options)


if __name__ == "__main__":
    main()
