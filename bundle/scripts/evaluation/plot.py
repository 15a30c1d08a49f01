"""The picture of an evaluation: how Dice spreads over targets, for every prompt kind and mode."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")  # Okabe and Ito: told apart by the colour-blind
LEAST_FOR_VIOLIN = 5  # fewer values have no shape


def plot_dice(scores: Iterable[tuple[str, str, float]], path: Path) -> None:
    """Write violins with their points and medians as a PNG.

    Args:
        scores: (kind, mode, Dice), kinds and modes in the order of the picture.
        path: the file.
    """
    scores = list(scores)
    kinds = list(dict.fromkeys(kind for kind, _, _ in scores))
    modes = list(dict.fromkeys(mode for _, mode, _ in scores))
    figure = Figure(figsize=(max(5.0, 1.2 + 0.75 * len(kinds) * max(len(modes), 2)), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.85 / max(len(modes), 1)
    for m, mode in enumerate(modes):
        color = COLORS[m % len(COLORS)]
        axes.plot([], [], "o", color=color, label=mode)  # the legend's entry
        for k, kind in enumerate(kinds):
            values = [value for one, other, value in scores if (one, other) == (kind, mode)]
            _violin(axes, k + (m - (len(modes) - 1) / 2) * width, values, width, color)
    _label(axes, kinds, len(scores))
    figure.savefig(path, dpi=150)


def _violin(axes: Axes, x: float, values: Sequence[float], width: float, color: str) -> None:
    if not values:
        return
    if len(values) >= LEAST_FOR_VIOLIN and np.ptp(values) > 0:
        bodies = axes.violinplot(values, [x], widths=0.9 * width, showextrema=False)["bodies"]
        for body in bodies:  # type: ignore[attr-defined]  # matplotlib types the dict by its other values
            body.set(facecolor=color, alpha=0.3)
    shift = np.random.default_rng(0).uniform(-0.2, 0.2, len(values)) * width
    axes.scatter(x + shift, values, s=8, color=color, alpha=0.6, linewidths=0)
    axes.hlines(float(np.median(values)), x - 0.3 * width, x + 0.3 * width, color="black", linewidth=1.5)


def _label(axes: Axes, kinds: Sequence[str], n: int) -> None:
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_xlim(-0.6, max(len(kinds), 1) - 0.4)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("Dice")
    axes.set_title(f"Dice per target, {n} answers; the bar is the median", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    if n:
        axes.legend(title="mode", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
