"""How fast a slider panel follows the hand, in a real browser: `python scripts/benchmark_panels.py`.

gain_explorer against the stock `interact` that draws the same content as a new inline figure: from a key press to
the changed picture, in one JupyterLab, in turns, so that whatever else the machine does slows both alike. Then a
drag across gain_explorer's slider: how far the picture stays behind the hand. The figures go to
data/results/bench_panels.json, whole or not at all.
"""

import argparse
import json
import os
import sys
import tempfile
from ast import literal_eval
from datetime import date
from pathlib import Path

import numpy as np

from benchmark import machine
from common import RESULTS, ROOT, write_atomically

sys.path.insert(0, str(ROOT / "tests" / "browser"))  # the same server, browser and notebook as the tests'
from serving import INSTALL, Notebook, find_chromium, launched, quiet_lab

PANEL = "from helpers.widgets import gain_explorer\npanel = gain_explorer()\npanel"
STOCK = """
import matplotlib.pyplot as plt
from ipywidgets import FloatSlider, interact
from helpers.widgets.network import draw_activations, draw_std_by_depth, read_network
from helpers.plots import use_style
use_style()
def show_network(gain):
    reading = read_network(init_gain=gain)
    fig, axes = plt.subplots(1, 2)
    for ax, draw in zip(axes, (draw_activations, draw_std_by_depth)):
        draw(reading, ax)
    plt.show()
interact(show_network, gain=FloatSlider(description="init gain", value=5 / 3, min=0.2, max=5, step=1 / 30));
"""
PICTURES = {"panel": ".widget-image", "interact": ".jp-OutputArea-output.jp-RenderedImage img"}
# In the page: when the key went down, and when the next picture had been decoded and painted.
WATCH = """async ([cell, picture]) => {
    const root = document.querySelectorAll('.jp-CodeCell')[cell];
    const source = () => root.querySelector(picture)?.src;
    window.pressed = new Promise(resolve => root.addEventListener('keydown', () => {
        const began = performance.now(), before = source();
        const look = async () => {
            const now = source();
            if (!now || now === before) return requestAnimationFrame(look);
            await root.querySelector(picture)?.decode?.().catch(() => 0);
            requestAnimationFrame(() => resolve(performance.now() - began));
        };
        requestAnimationFrame(look);
    }, {capture: true, once: true}));
}"""
# Every value of the knob with its time, and every picture with its number: the kernel keeps the value that each shows.
TRACE = """([picture]) => {
    const root = document.querySelector('.jp-CodeCell'), image = root.querySelector(picture);
    const readout = root.querySelector('.widget-readout');
    window.values = [[performance.now(), readout.textContent]]; window.pictures = [];
    new MutationObserver(() => window.values.push([performance.now(), readout.textContent]))
        .observe(readout, {childList: true, characterData: true, subtree: true});
    let changes = 0;
    const observer = new MutationObserver(records => changes += records.length);
    observer.observe(image, {attributeFilter: ['src']});
    image.addEventListener('load', () => {
        changes += observer.takeRecords().length;
        window.pictures.push([performance.now(), changes - 1]);
    });
}"""


def quantiles(times):
    return {
        "median_ms": round(float(np.median(times)), 1),
        "q95_ms": round(float(np.quantile(times, 0.95)), 1),
        "under_200_ms": round(float(np.mean(np.array(times) < 200)), 3),
        "moves": len(times),
    }


def key_presses(opened, moves):
    """Milliseconds from key press to picture, panel and interact in turns; the first of each is not counted."""
    times = {name: [] for name in PICTURES}
    page = opened.page
    for move in range(moves + 1):
        for cell, (name, picture) in enumerate(PICTURES.items()):
            page.locator(".jp-CodeCell").nth(cell).locator(".noUi-handle").first.focus()
            page.evaluate(WATCH, [cell, picture])
            page.keyboard.press("ArrowRight" if move % 40 < 20 else "ArrowLeft")
            took = page.evaluate("window.pressed")
            page.wait_for_timeout(60)
            if move:
                times[name].append(took)
    return times


def drag(opened, seconds=4.0):
    """How long the picture stays behind the knob while it is dragged to and fro, in milliseconds.

    At every change of the picture: how long ago the knob left the value that the picture shows, 0 while it is
    still there. And between pictures the same, every 10 ms: what an eye sees.
    """
    page = opened.page
    opened.do(
        "shown = []\ndef note(change):\n    shown.append(panel.reading.label)\npanel.picture.observe(note, 'value')"
    )
    handle = page.locator(".noUi-handle").first.bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.evaluate(TRACE, [PICTURES["panel"]])
    steps = int(seconds * 60)
    for step in range(steps):  # a hand's speed: the width of the slider in about two seconds
        page.mouse.move(x + 90 * np.sin(2 * np.pi * step / steps * seconds / 4), y)
        page.wait_for_timeout(1000 / 60)
    page.mouse.up()
    page.wait_for_timeout(1500)
    values = page.evaluate("window.values")
    pictures = page.evaluate("window.pictures")
    shown = [float(label.split()[1]) for label in literal_eval(opened.value("shown"))]
    return lags(values, [(time, shown[i]) for time, i in pictures])


def lags(values, pictures):
    """(behind at every picture, behind every 10 ms), in ms. values: (time, readout); pictures: (time, value)."""
    moved = [(time, float(text)) for time, text in values]
    left = []  # (when the picture appeared, when the knob had left its value, or None)
    for time, value in pictures:
        times = [i for i, (t, v) in enumerate(moved) if t <= time and abs(v - value) < 0.006]
        last = times[-1]
        left.append((time, moved[last + 1][0] if last + 1 < len(moved) else np.inf))
    at_pictures = [max(0.0, time - gone) for time, gone in left]
    end = moved[-1][0]
    sampled = [
        max(0.0, now - next(gone for time, gone in reversed(left) if time <= now))
        for now in np.arange(left[0][0], end, 10)
    ]
    return at_pictures, sampled


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=60, help="key presses of each kind")
    parser.add_argument("--output", type=Path, default=RESULTS / "bench_panels.json")
    arguments = parser.parse_args()
    if find_chromium() is None:
        sys.exit(INSTALL)
    with tempfile.TemporaryDirectory() as home, quiet_lab(Path(home)) as lab, launched() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 2200})
        page.set_default_timeout(60_000)
        opened = Notebook(page, lab, [PANEL, STOCK])
        times = key_presses(opened, arguments.moves)
        opened.shut_down()
        opened = Notebook(page, lab, [PANEL])
        at_pictures, sampled = drag(opened)
        opened.shut_down()

    ratio = float(np.median(times["interact"]) / np.median(times["panel"]))
    result = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "load": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "gain_explorer": quantiles(times["panel"]),
        "interact": quantiles(times["interact"]),
        "times_faster": round(ratio, 2),
        "drag_behind": {
            "pictures": len(at_pictures),
            "median_ms": round(float(np.median(sampled)), 1),
            "at_new_pictures_median_ms": round(float(np.median(at_pictures)), 1),
            "q95_ms": round(float(np.quantile(sampled, 0.95)), 1),
            "most_ms": round(float(np.max(sampled)), 1),
        },
    }
    write_atomically(arguments.output, (json.dumps(result, indent=2) + "\n").encode())
    for name in "gain_explorer", "interact":
        row = result[name]
        print(f"{name:14} {row['median_ms']:7.1f} ms in the middle, 95 % within {row['q95_ms']:.0f} ms")
    print(f"gain_explorer is {ratio:.1f} times as fast")
    behind = result["drag_behind"]
    print(f"dragged: {behind['median_ms']:.0f} ms behind in the middle, at most {behind['most_ms']:.0f} ms")


if __name__ == "__main__":
    main()
