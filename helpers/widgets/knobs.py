"""The controls of the slider panels: each carries its name in words and a sentence of what it does."""

import html
import random

import ipywidgets as widgets

__all__ = [
    "button",
    "by_name",
    "choice",
    "control",
    "gain_knob",
    "learning_rate_knob",
    "new_seed",
    "seed_knob",
    "switch",
]

GAIN_STEP = 1 / 30  # so that .5, 1, 5/3 and 3 are among the slider's values


def control(kind, name, says, **options):
    """A widget that carries its name in words and a sentence of what it does."""
    style = {"description_width": "115px"}
    widget = kind(description=name, style=style, tooltip=says, layout={"width": "490px"}, **options)
    note = f'<div style="font-size: 85%; line-height: 1.3; opacity: 0.75">{html.escape(says)}</div>'
    above = -4 if "Slider" in kind.__name__ or kind is widgets.Checkbox else 0  # they leave room below them
    widget.says = widgets.HTML(note, layout={"margin": f"{above}px 0 6px 123px", "width": "365px"})
    return widget


def button(name, says, on_click, **options):
    """A button; on_click takes no arguments."""
    made = widgets.Button(description=name, tooltip=says, layout={"width": "auto"}, **options)
    made.on_click(lambda _: on_click())
    return made


def by_name(*made):
    """{name: widget}, as a Panel takes them."""
    return {widget.description: widget for widget in made}


def gain_knob(value, says="Multiplies every hidden weight, on top of 1/sqrt(fan_in)."):
    return control(widgets.FloatSlider, "init gain", says, value=value, min=0.2, max=5, step=GAIN_STEP)


def learning_rate_knob(value, says):
    return control(
        widgets.FloatLogSlider,
        "learning rate",
        says,
        value=value,
        base=10,
        min=-4,
        max=1,
        step=0.1,
        readout_format=".2g",
    )


def seed_knob(value):
    says = "Where the random numbers come from."
    return control(widgets.BoundedIntText, "seed", says, value=value, min=0, max=2**32 - 1)


def choice(name, says, options, value):
    return control(widgets.Dropdown, name, says, options=list(options), value=value)


def switch(name, says, value):
    return control(widgets.Checkbox, name, says, value=value)


def new_seed(seed):
    """A button that gives the seed's control another value."""

    def draw():
        seed.value = random.SystemRandom().randrange(2**31)  # leaves Python's own random state alone

    return button("new seed", "Draw all random numbers anew.", draw)
