"""Chapter 07's panel: the network as a list of layers, BatchNorm put in by a switch; and the drawing of any list."""

from dataclasses import dataclass

from matplotlib.patches import FancyBboxPatch

from helpers.models import deep_mlp, seeded
from helpers.plots import GRAY, GREEN, ORANGE
from helpers.widgets.board import FILLS
from helpers.widgets.panel import Panel, slider, switch

COLORS = {"Embedding": FILLS[0], "Linear": FILLS[1], "BatchNorm1d": FILLS[2], "Tanh": "#f3f3f3"}
EDGES = {"BatchNorm1d": GREEN, "Embedding": ORANGE}
TEXTS = {"BatchNorm1d": "BatchNorm", "Embedding": "C"}
MOST = 21  # boxes that stand side by side and can still be read


@dataclass
class LayerListReading:
    """boxes: for every layer, in order, its kind, its shape in words, and the number of its parameters."""

    boxes: list

    @property
    def parameters(self):
        return sum(count for *_, count in self.boxes)

    def of(self, kind):  # how many parameters the layers of one kind have together
        return sum(count for name, _, count in self.boxes if name == kind)


def read_layers(layers, C=None):
    """Any list of layers with `parameters()`, the lecture's or torch's, and the embedding table: a LayerListReading."""
    boxes = [] if C is None else [("Embedding", " × ".join(map(str, C.shape)), C.numel())]
    for layer in layers:
        if (kind := type(layer).__name__) != "Flatten":
            shape = " → ".join(map(str, layer.weight.shape)) if kind == "Linear" else ""
            shape = str(len(layer.gamma)) if kind == "BatchNorm1d" else shape
            boxes.append((kind, shape, sum(p.numel() for p in layer.parameters())))
    return LayerListReading(boxes)


def read_layer_list(*, batch_norm=False, hidden_layers=5, width=100):
    """The lecture's network of part 2 at another depth and width: a LayerListReading."""
    model = deep_mlp(depth=hidden_layers + 1, n_hidden=width, batch_norm=batch_norm, generator=seeded())
    return read_layers(list(model)[1:], C=model.embedding.weight)


def draw_layers(reading, ax):
    """The layers as boxes from left to right, the number of parameters under each."""
    wide = max(len(reading.boxes), 3)
    ax.plot([-0.9, wide - 0.1], [0, 0], color="#333333", linewidth=1.4, zorder=1)
    ax.plot([wide - 0.1], [0], ">", color="#333333", markersize=6)
    for i, (kind, shape, count) in enumerate(reading.boxes):
        look = dict(facecolor=COLORS.get(kind, "white"), edgecolor=EDGES.get(kind, "#333333"), linewidth=1.2, zorder=2)
        ax.add_patch(FancyBboxPatch((i - 0.36, -1), 0.72, 2, boxstyle="round,pad=0,rounding_size=0.08", **look))
        named = f"{TEXTS.get(kind, kind)}  {shape}".strip()
        ax.text(i, 0, named, rotation=90, ha="center", va="center", fontsize=9.5, zorder=3)
        ax.text(i, -1.12, f"{count:,}" if count else "–", ha="center", va="top", fontsize=8.5, color=GRAY)
    ax.set(xlim=(-1, wide), ylim=(-1.5, 1.1))
    ax.axis("off")
    layers = len(reading.boxes) - bool(reading.of("Embedding"))
    ax.set_title(f"{layers} layers, {reading.parameters:,} parameters (each layer's below its box)")


def layer_list_explorer(*, batch_norm=False, hidden_layers=5, width=100):
    """Put the BatchNorms in and take them out, add layers, make them wider: the list, and its parameters."""
    controls = [
        switch("batch norm", "A BatchNorm behind every Linear, and no biases.", batch_norm),
        slider("hidden layers", "How many Linears have a Tanh behind them.", hidden_layers, 1, (MOST - 3) // 3, 1),
        slider("width", "The units of each hidden layer.", width, 10, 200, 10),
    ]
    alt = f"The network as a row of boxes, with{'' if batch_norm else 'out'} BatchNorm, {hidden_layers} hidden layers."
    margins = dict(left=0.01, right=0.99, bottom=0.02, top=0.9)
    return Panel(read_layer_list, [draw_layers], controls, alt=alt, figsize=(10, 3.2), margins=margins)
