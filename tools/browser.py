#!/usr/bin/env python3
"""Looks at the pages of `--format html` in a real browser, as a person would: on a desk and on a phone, light and dark, by keyboard.

    tools/browser.py [--program target/debug/heapcheck] [--bless]

Needs chromium (apt install chromium) and says so where there is none (exit status 3). Of each page: nothing is fetched and nothing complained
about; nothing is wider than the screen; Tab goes from top to bottom, to what can be seen, the link over the sections first; headings, regions and
pictures have names for whoever listens; tables are sorted by a key; without scripts the text is the same. Pictures of it are
compared with those of docs/screens: cells of 8 by 8 points, so that another font's edges pass and a missing part does not. --bless writes them anew.
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCREENS = os.path.join(ROOT, "docs/screens")
DEMO = ["testdata/demo/double-free.core.zst", "testdata/demo/double-free"]
# Page: its command line.
PAGES = {
    "check": DEMO,
    "usage": ["usage", "tests/cores/2.10/healthy-threads-01/core.xz"],
    "types": ["usage", "--by", "type", "tests/cores/glibc-2.36/types-stripped/core.xz"],
    "maps": ["maps", *DEMO],
    "leaks": ["leaks", "fixtures/jemalloc-5.3.0/leaks-O2/core", "fixtures/jemalloc-5.3.0/leaks-O2/binary"],
}
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
# Pictures that are kept: page, size, scheme, the part of the page (nothing: what is seen first).
PICTURES = [
    ("check", "desk", "light", None),
    ("check", "desk", "dark", None),
    ("check", "phone", "light", None),
    ("check", "desk", "light", "#heap"),
    ("check", "phone", "dark", "#heap"),
    ("usage", "desk", "light", "#usage"),
    ("usage", "phone", "light", "#usage"),
    ("usage", "desk", "dark", "#usage"),
]
TALLEST = 1600
# Of the cells of a picture so many may differ by more than so much (of 255).
MAY_DIFFER, BY = 0.06, 40


class Browser:
    """A headless Chromium, spoken to over a pipe: the DevTools protocol, messages that end with a zero byte."""

    def __init__(self, program, folder):
        to_browser, self.out = os.pipe()
        self.come, from_browser = os.pipe()

        def wire():
            # The browser reads file 3 and writes file 4; neither number may be lost while they are moved.
            read, write = os.dup(to_browser), os.dup(from_browser)
            read, write = (os.dup(fd) if fd in (3, 4) else fd for fd in (read, write))
            os.dup2(read, 3)
            os.dup2(write, 4)

        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
                 "--disable-sync", "--disable-quic", "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        self.process = subprocess.Popen([program, *flags, "about:blank"], preexec_fn=wire, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.number, self.rest, self.events, self.session = 0, b"", [], None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility", "DOM"]:
            self(f"{domain}.enable")

    def __call__(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def message(self):
        while b"\0" not in self.rest:
            more = os.read(self.come, 1 << 16)
            if not more:
                raise RuntimeError("the browser has gone")
            self.rest += more
        one, self.rest = self.rest.split(b"\0", 1)
        found = json.loads(one)
        if "method" in found:
            self.events.append(found)
        return found

    def open(self, url, size, scheme, scripts=True):
        width, height = size
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.message()

    def eval(self, script):
        answer = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def key(self, key, code):
        for kind in ["keyDown", "keyUp"]:
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text="\r" if key == "Enter" and kind == "keyDown" else "")

    def picture(self, part, size):
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        if part:
            box = self.eval(f"(() => {{ const box = document.querySelector('{part}').getBoundingClientRect(); return [box.top + scrollY, box.height]; }})()")
            clip.update(y=box[0], height=min(box[1], TALLEST))
        return self("Page.captureScreenshot", format="jpeg", quality=70, clip=clip, captureBeyondViewport=True)["data"]

    def differ(self, one, other):
        """The share of the cells that differ between two pictures, as data of JPEG files."""
        self.open("about:blank", SIZES["desk"], "light")
        return self.eval("""(async (files) => {
            const images = await Promise.all(files.map((data) => new Promise((done, fail) => {
                const image = new Image(); image.onload = () => done(image); image.onerror = fail; image.src = 'data:image/jpeg;base64,' + data;
            })));
            const [a, b] = images;
            if (a.width !== b.width || Math.abs(a.height - b.height) > 0.08 * a.height) return 1;
            const [width, height] = [Math.ceil(a.width / 8), Math.ceil(Math.min(a.height, b.height) / 8)];
            const cells = images.map((image) => {
                const canvas = document.createElement('canvas'); [canvas.width, canvas.height] = [width, height];
                const paint = canvas.getContext('2d'); paint.imageSmoothingQuality = 'high';
                paint.drawImage(image, 0, 0, width * 8, height * 8, 0, 0, width, height);
                return paint.getImageData(0, 0, width, height).data;
            });
            let far = 0;
            for (let at = 0; at < cells[0].length; at += 4)
                far += [0, 1, 2].some((color) => Math.abs(cells[0][at + color] - cells[1][at + color]) > %d);
            return far / (width * height);
        })(%s)""" % (BY, json.dumps([one, other])))

    def close(self):
        self.process.terminate()
        self.process.wait()


TEXT = "document.body.innerText.replace(/\\s+/g, ' ')"
STEPS = """(() => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  const box = e.getBoundingClientRect(), style = getComputedStyle(e);
  window.steps = window.steps || [];
  const last = window.steps.at(-1);
  window.steps.push(e);
  return { name: e.getAttribute('aria-label') || e.textContent.trim().slice(0, 40), seen: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
           marked: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1,
           forward: !last || Boolean(last.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING) };
})()"""


def look(browser, name, url, wrong):
    """Everything but the pictures."""
    texts = {}
    for size in SIZES:
        for scheme in ["light", "dark"]:
            browser.open(url, SIZES[size], scheme)
            where = f"{name}, {size}, {scheme}"
            wide = browser.eval("document.documentElement.scrollWidth - innerWidth")
            if wide > 0:
                wrong(f"{where}: {wide} points wider than the screen")
            for event in browser.events:
                asked = event["params"].get("request", {}).get("url", url)
                if event["method"] == "Network.requestWillBeSent" and asked != url:
                    wrong(f"{where}: asks for {asked}")
                if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown"):
                    wrong(f"{where}: {event['params']}")
            thin = browser.eval(CONTRAST)
            if thin:
                wrong(f"{where}: too little contrast: {thin}")
        texts[size] = browser.eval(TEXT)
    by_keyboard(browser, name, wrong)
    by_ear(browser, name, wrong)
    browser.open(url, SIZES["desk"], "light")
    with_scripts = browser.eval(TEXT)
    sort(browser, name, wrong)
    browser.open(url, SIZES["desk"], "light", scripts=False)
    # The protocol's own evaluation still works; the page's script did not run.
    if browser.eval(TEXT) != with_scripts:
        wrong(f"{name}: other text without scripts")
    browser("Emulation.setScriptExecutionDisabled", value=False)


# Texts whose colour is too near to what is behind them: 4.5 to 1 by WCAG 2. Behind text in a picture is the rectangle of its group.
CONTRAST = """(() => {
  const light = (color) => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map((part) => { const c = part / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = (e) => {
    if (e.namespaceURI.endsWith('svg')) return getComputedStyle(e.parentNode.querySelector('rect')).fill;
    for (; e; e = e.parentElement) { const color = getComputedStyle(e).backgroundColor; if (!/, 0\\)$/.test(color)) return color; }
    return 'rgb(255, 255, 255)';
  };
  const bad = new Set();
  for (const e of document.querySelectorAll('p,dt,dd,h1,h2,h3,h4,td,th,li,a,mark,pre,caption,summary,button,svg.tree text')) {
    if (!e.textContent.trim()) continue;
    const own = getComputedStyle(e), color = e.namespaceURI.endsWith('svg') ? own.fill : own.color;
    const [a, b] = [light(color), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.add(`${e.tagName} .${e.getAttribute('class')} ${ratio.toFixed(1)}`);
  }
  return [...bad].join('; ');
})()"""


def by_keyboard(browser, name, wrong):
    browser.eval("window.steps = []; document.activeElement.blur(); scrollTo(0, 0)")
    steps = []
    for _ in range(40):
        browser.key("Tab", 9)
        step = browser.eval(STEPS)
        if not step:
            break
        steps.append(step)
    if len(steps) < 3 or not steps[0]["name"].startswith("Skip"):
        wrong(f"{name}: Tab begins with {[step['name'] for step in steps[:3]]}")
    for step in steps:
        if not (step["seen"] and step["marked"] and step["forward"]):
            wrong(f"{name}: Tab comes to {step}")


def by_ear(browser, name, wrong):
    found = browser("Accessibility.getFullAXTree")["nodes"]
    by_id = {node["nodeId"]: node for node in found}
    # In the order in which they are read.
    nodes, open_nodes = [], [found[0]["nodeId"]]
    while open_nodes:
        node = by_id.get(open_nodes.pop())
        if node:
            nodes.append(node)
            open_nodes.extend(reversed(node.get("childIds", [])))
    value = lambda node, key: (node.get(key) or {}).get("value", "")
    depth = 0
    for node in nodes:
        role, said = value(node, "role"), value(node, "name")
        if node.get("ignored"):
            continue
        if role in ("heading", "region", "img", "image", "link", "button", "navigation", "table") and not said.strip():
            wrong(f"{name}: a {role} without a name")
        if role == "heading":
            level = next((it["value"]["value"] for it in node.get("properties", []) if it["name"] == "level"), 0)
            if level > depth + 1:
                wrong(f"{name}: heading {said!r} of level {level} after one of level {depth}")
            depth = level
    roles = [value(node, "role") for node in nodes]
    for role in ["banner", "navigation", "main", "contentinfo"]:
        if roles.count(role) != 1:
            wrong(f"{name}: {roles.count(role)} of the role {role}")


def sort(browser, name, wrong):
    """The first table that can be sorted, by its first number, with the keyboard."""
    column = browser.eval("""(() => { const table = document.querySelector('table.sortable'); if (!table) return null;
        const heads = [...table.tHead.rows[0].cells]; const at = heads.findIndex((it) => it.classList.contains('number'));
        heads[at].querySelector('button').focus(); return at; })()""")
    if column is None:
        return
    cells = f"[...document.querySelector('table.sortable').tBodies[0].rows].map((row) => Number(row.cells[{column}].dataset.value))"
    for order in ["falling", "rising"]:
        browser.key("Enter", 13)
        numbers = browser.eval(cells)
        if numbers != sorted(numbers, reverse=order == "falling"):
            wrong(f"{name}: sorted by a key, {order}: {numbers[:10]}")


def main():
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--program", default="target/debug/heapcheck")
    words.add_argument("--bless", action="store_true")
    words = words.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        print("browser.py: there is no chromium here: apt install chromium", file=sys.stderr)
        return 3
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        urls = {}
        for name, arguments in PAGES.items():
            if not all(os.path.exists(os.path.join(ROOT, it)) for it in arguments if "/" in it):
                print(f"{name}: its core is not built")
                continue
            page = os.path.join(folder, f"{name}.html")
            program = os.path.join(ROOT, words.program)
            # The same bytes on any machine: no time of a file, no library of this one.
            subprocess.run([program, *arguments, "--no-default-paths", "--format", "html", "--output", page], cwd=ROOT, check=False)
            urls[name] = f"file://{page}"
        browser = Browser(chromium, os.path.join(folder, "profile"))
        try:
            for name, url in urls.items():
                before = len(errors)
                look(browser, name, url, errors.append)
                print(f"{name}: {os.path.getsize(url[7:])} bytes, {'looked at' if before == len(errors) else 'WRONG'}")
            os.makedirs(SCREENS, exist_ok=True)
            for name, size, scheme, part in (picture for picture in PICTURES if picture[0] in urls):
                browser.open(urls[name], SIZES[size], scheme)
                now = browser.picture(part, SIZES[size])
                title = "-".join([name, *([part[1:]] if part and part[1:] != name else []), size, scheme])
                kept = os.path.join(SCREENS, f"{title}.jpg")
                if words.bless:
                    with open(kept, "wb") as file:
                        file.write(base64.b64decode(now))
                    continue
                with open(kept, "rb") as file:
                    share = browser.differ(base64.b64encode(file.read()).decode(), now)
                print(f"{title}: {100 * share:.2f} % of the cells differ")
                if share > MAY_DIFFER:
                    errors.append(f"{title}: {100 * share:.0f} % of the cells differ from docs/screens")
        finally:
            browser.close()
    print("\n".join(errors))
    print(f"{len(urls)} pages, {len(PICTURES)} pictures: {'as they were' if not errors else f'{len(errors)} errors'}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
