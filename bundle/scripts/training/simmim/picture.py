"""The picture of a reconstruction: what was there, what was shown, and what the network made of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

COLUMNS = ("input", "masked input", "reconstruction of the masked")
HIDDEN = "#2b4a78"
PANEL = 2.4  # inches


def draw_reconstructions(path: Path, views: Sequence[Sequence[torch.Tensor]], title: str) -> None:
    """Write a PNG, a row a view: its middle axial slice, patient's right at image left, front up.

    Args:
        path: the PNG.
        views: image (d, h, w) in [0, 1], mask (d, h, w) bool, True where hidden, and reconstruction (d, h, w).
        title: above the rows.
    """
    figure = Figure(figsize=(3 * PANEL + 0.2, PANEL * len(views) + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, size=10)
    gray = colormaps["gray"].with_extremes(bad=HIDDEN)
    panels = figure.subplots(len(views), len(COLUMNS), squeeze=False)
    for row, view in zip(panels, views, strict=True):
        for axes, name, plane in zip(row, COLUMNS, _planes(*view), strict=True):
            axes.imshow(plane, cmap=gray, vmin=0, vmax=1, interpolation="nearest")
            axes.set_axis_off()
            if row is panels[0]:
                axes.set_title(name, size=9)
    figure.savefig(path, dpi=100, format="png")


def _planes(image: torch.Tensor, mask: torch.Tensor, reconstruction: torch.Tensor) -> tuple[NDArray[np.float32], ...]:
    """Input, input without what is hidden, input with what is hidden as it was reconstructed."""
    true, hidden, drawn = (_axial(volume) for volume in (image.float(), mask, reconstruction.float()))
    return true, np.ma.masked_where(hidden, true), np.where(hidden, drawn, true)


def _axial(volume: torch.Tensor) -> NDArray:
    """The middle slice of (d, h, w), whose axes run up, to the front and to the patient's right."""
    return volume[volume.shape[0] // 2].flip(0, 1).cpu().numpy()
