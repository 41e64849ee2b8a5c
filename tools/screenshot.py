#!/usr/bin/env python3
"""A picture of the viewer, as it stands on a terminal: docs/view.svg.

    tools/screenshot.py [--program target/debug/heapcheck] [--size 110x36] [--keys 'Enter'] [--out docs/view.svg]

tmux holds the terminal (it is installed by apt where there is none and the user may); what it shows is drawn as text in an SVG, each
row as it stands, in any monospaced font.
"""

import argparse
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CORE = ["--no-default-paths", "testdata/demo/double-free.core.zst", "testdata/demo/double-free"]
WIDTH, HEIGHT, SIZE = 8.4, 18, 14
COLORS = {31: "#ff7b72", 32: "#7ee787", 33: "#e3b341", 36: "#79c0ff"}
PAPER, INK, FAINT = "#0d1117", "#e6edf3", "#9198a1"


class Tmux:
    """A terminal of a tmux server of its own."""

    def __init__(self, folder, columns, rows, command):
        self.start = ["tmux", "-S", os.path.join(folder, "socket"), "-f", "/dev/null"]
        environment = dict(os.environ, LANG="C.UTF-8", LC_ALL="C.UTF-8")
        environment.pop("NO_COLOR", None)
        subprocess.run(
            self.start + ["new-session", "-d", "-x", str(columns), "-y", str(rows)] + command,
            check=True, cwd=ROOT, env=environment)
        self("set-option", "status", "off")

    def __call__(self, *words):
        return subprocess.run(self.start + list(words), check=True, capture_output=True, text=True).stdout

    def screen(self, *options):
        return self("capture-pane", "-p", *options)

    def settled(self, text):
        """The screen when it holds `text`, says of nothing that it is waited for, and does not change any more."""
        last = None
        for _ in range(600):
            now = self.screen()
            if text in now and not re.search(r" \.\.\. *[│┃]", now) and now == last:
                return
            last = now
            time.sleep(0.2)
        sys.exit(f"screenshot.py: {text!r} never came:\n{last}")


def runs(line):
    """A row as (style, text): the codes of ISO 6429 that tmux writes."""
    style = set()
    for code, text in re.findall(r"\x1b\[([0-9;:]*)m|([^\x1b]+)", line):
        if text:
            yield frozenset(style), text
            continue
        for number in [int(part or 0) for part in code.split(";")]:
            if number == 0:
                style.clear()
            elif number == 39:
                style -= set(COLORS)
            elif number == 22:
                style -= {1, 2}
            elif number in (24, 27):
                style.discard(number - 20)
            else:
                style.add(number)


def drawn(screen, columns):
    rows = screen.rstrip("\n").split("\n")
    width, height = columns * WIDTH + 24, len(rows) * HEIGHT + 24
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" '
        'aria-label="heapcheck view: threads, frames, variables, findings, the finding in the middle, heap statistics">',
        f'<rect width="100%" height="100%" rx="6" fill="{PAPER}"/>',
        f'<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{SIZE}" fill="{INK}">',
    ]
    for number, row in enumerate(rows):
        y, column = 12 + number * HEIGHT, 0
        for style, text in runs(row):
            x, length = 12 + column * WIDTH, len(text) * WIDTH
            column += len(text)
            color = next((COLORS[code] for code in style if code in COLORS), None)
            color = color or (FAINT if 2 in style else None)
            if 7 in style:
                out.append(f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{HEIGHT}" fill="{color or INK}"/>')
                color = PAPER
            if not text.strip():
                continue
            blanks = len(text) - len(text.lstrip())
            word = text.strip()
            more = f' fill="{color}"' if color else ""
            more += ' font-weight="bold"' if 1 in style else ""
            more += ' text-decoration="underline"' if 4 in style else ""
            out.append(
                f'<text x="{x + blanks * WIDTH:.1f}" y="{y + 14}" textLength="{len(word) * WIDTH:.1f}" '
                f'xml:space="preserve"{more}>{html.escape(word)}</text>')
    return "\n".join(out + ["</g>", "</svg>"]) + "\n"


def main():
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--program", default="target/debug/heapcheck")
    words.add_argument("--size", default="110x36")
    words.add_argument("--keys", nargs="*", default=["Enter", "j"])
    words.add_argument("--out", default=os.path.join(ROOT, "docs/view.svg"))
    words = words.parse_args()
    if not shutil.which("tmux"):
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", "tmux"], check=True)
    columns, rows = (int(number) for number in words.size.split("x"))
    program = os.path.join(ROOT, words.program)
    with tempfile.TemporaryDirectory() as folder:
        tmux = Tmux(folder, columns, rows, [program, "view", *CORE])
        try:
            tmux.settled("DAMAGED")
            for key in words.keys:
                tmux("send-keys", key)
            tmux.settled("DAMAGED")
            screen = tmux.screen("-e")
        finally:
            tmux("kill-server")
    with open(words.out, "w", encoding="utf-8") as file:
        file.write(drawn(screen, columns))


if __name__ == "__main__":
    main()
