"""Notebooks made for tests, and what damages them; among them a lesson in the form that scripts/lesson_rules.py holds.

The lesson throws coins, and asks how their sum spreads.
"""

import nbformat
from nbformat import v4

import refresh

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
FOLDED = {"jupyter": {"source_hidden": True, "outputs_hidden": True}}
COLLAPSED = {"jp-MarkdownHeadingCollapsed": True}
SIZES = 16, 36, 81, 144, 400

TITLE = """# E99 · A sum of coins

[Watch: 1:22, "the sum"](https://youtu.be/P6sfmUTpUmc?t=82), 3 minutes · this page: 20 minutes

Each coin adds 1 or takes 1 away. How far from zero does a sum of many coins end?
"""
SET_UP = """import matplotlib.pyplot as plt
import torch
from helpers.plots import show

torch.set_num_threads(1)
g = torch.Generator().manual_seed(1)"""
EXPERIMENT = """sums = (2 * torch.randint(0, 2, (10_000, {n}), generator=g) - 1).sum(1)
spread = sums.double().std().item()"""
DRAWING = """# draw the sums
fig, ax = plt.subplots(figsize=(8, 2))
ax.hist(sums.numpy(), bins=40)
ax.set(title=f"A bell: its std is {spread:.1f}", xlabel="sum of the coins")
show(fig, f"A bell around zero, its std is {spread:.1f}.")
if guess is not None:
    print(f"You said {guess}, it is {spread:.1f}.")"""
READING = """<details><summary><b>Read the picture</b> (after you have run the cell)</summary>

A bell. Its std is {std:.1f}: the root of the number of coins.
</details>"""
EXERCISE = """<details><summary>Hint 1</summary>

Variances add up.
</details>

<details><summary>Solution</summary>

```python
def spread_of(n):
    return n ** 0.5
```
</details>"""
FOUND = """## What you found

- The std of a sum of coins is the root of their number: 4.0 for 16 coins, 20.0 for 400.

Where it comes from: [LeCun and others, Efficient BackProp](http://yann.lecun.com/exdb/publis/pdf/lecun-98b.pdf).
"""


def prose(source, **metadata):
    return v4.new_markdown_cell(source, metadata=metadata)


def code(source, *tags, outputs=(), **metadata):
    return v4.new_code_cell(source, metadata={**metadata, **({"tags": [*tags]} if tags else {})}, outputs=[*outputs])


def figure(alt, png=PIXEL):
    data = {"image/png": png, "text/plain": "<Figure size 800x200 with 1 Axes>"}
    return v4.new_output("display_data", data, metadata={"image/png": {"alt": alt}})


def text(printed, name="stdout"):
    return v4.new_output("stream", name=name, text=printed)


def write(path, cells, **metadata):
    """Write cells as scripts/refresh.py would leave them, apart from their outputs; returns the path."""
    nb = v4.new_notebook(cells=cells, metadata=metadata)
    for count, cell in enumerate([cell for cell in cells if cell.cell_type == "code" and cell.source], start=1):
        cell.execution_count = count
    refresh.tidy(nb)
    path.write_text(nbformat.writes(nb) + "\n", encoding="utf-8", newline="\n")
    return path


# What damages a list of cells: functions that change it


def replace(index, old, new):
    def damage(cells):
        assert old in cells[index].source
        cells[index].source = cells[index].source.replace(old, new)

    return damage


def put(index, *new):
    return lambda cells: cells.__setitem__(slice(index, index), new)


def drop(start, stop):
    return lambda cells: cells.__delitem__(slice(start, stop))


def show(index, *outputs, **metadata):
    return lambda cells: cells[index].update(outputs=[*outputs], metadata=metadata)


def tag(index, *tags):
    return lambda cells: cells[index].metadata.update(tags=[*tags])


# The lesson


def step(n):
    """One step: a heading that asks, a guess, an experiment, a folded drawing, its reading in <details>."""
    std = n**0.5
    return [
        prose(f"## How far do {n} coins end from zero?\n\nThrow them ten thousand times, and look at all the sums."),
        prose(
            f"**Your guess.** What is the std of the sums? Write a number between 0 and {n}, then run all three cells."
        ),
        code("guess = None", "guess"),
        code(EXPERIMENT.format(n=n)),
        code(DRAWING, **FOLDED, outputs=[figure(f"A bell around zero, its std is {std:.1f}.")]),
        prose(READING.format(std=std)),
    ]


def small_lesson():
    """The cells of the lesson: step k's are 2 + 6k to 7 + 6k."""
    return [
        prose(TITLE),
        code(SET_UP, "setup"),
        *[cell for n in SIZES for cell in step(n)],
        prose(
            "## Exercises\n\n### Exercise 99.1 · The root\n\n*Easy, 2 minutes.* Write what you have found as a function."
        ),
        code("def spread_of(n):\n    return ...", "exercise"),
        code("bool(spread_of(9) == 3)", "check"),
        prose(EXERCISE),
        prose(FOUND),
        prose("## Going deeper", **COLLAPSED),
        prose("### What does a biased coin do?\n\nThe mean moves away, and the variance falls."),
        code("biased = torch.rand(10_000, 100, generator=g) < 0.9\nbiased.double().sum(1).std()"),
        prose("## What the lecture says, checked", **COLLAPSED),
        code("assert abs(spread - 20) < 0.5"),
    ]
