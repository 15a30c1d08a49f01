"""What a click says comes first: in a mask that is mended, and where zooming in loses what was clicked.

To mend, the windows that hold a new click are decided anew. Of what they would change, only the pieces that a click
lies in are taken, so that what was right elsewhere in the same window stays as it was.
"""

import numpy as np
import torch
from scipy import ndimage

from .plans import Plan, Refinement
from .prompts import Prompt
from .windows import CoarseView, slices, whole

SURE = 10.0  # logit of a voxel that is not decided anew


def mend(logits: torch.Tensor, last: Refinement, prompt: Prompt, plan: Plan) -> None:
    """Turn window logits into those of the mended mask, in place.

    Args:
        logits: (D, H, W), decided in the windows of the plan.
        last: the mask before the new clicks.
        prompt: the target in voxels of the volume; a new click has its own label whatever the network says.
        plan: from ``plan_refine``.
    """
    decided = logits.clone()
    logits.copy_(torch.from_numpy(np.where(last.mask, SURE, -SURE)))
    if not plan.steps:
        return
    first = np.min([window.first for window, _ in plan.steps], axis=0)
    part = slices(np.array([first, np.max([window.last for window, _ in plan.steps], axis=0)]))
    fresh = decided[part].cpu().numpy()
    shown = np.zeros(fresh.shape, dtype=bool)
    for window, _ in plan.steps:
        shown[slices(window.extent - first)] = True
    clicks = _clicks(prompt, last, first, shown)
    changed = _changed_pieces(np.where(shown, fresh > 0, last.mask[part]), last.mask[part], clicks)
    values = np.where(changed, np.where(last.mask[part], np.minimum(fresh, -1e-3), np.maximum(fresh, 1e-3)), np.nan)
    keep = torch.from_numpy(~changed).to(logits.device)
    logits[part] = torch.where(keep, logits[part], torch.from_numpy(values).to(logits.dtype).to(logits.device))


def keep_clicked(logits: torch.Tensor, coarse: CoarseView, prompt: Prompt, plan: Plan) -> None:
    """Take back what the zoom-out view drew around a positive click where the windows left the click out, in place.

    A window without the rest of an organ around it may deny what the whole volume shows. Only the connected pieces of
    the difference in which such a click lies come back, with the logits of the zoom-out view.

    Args:
        logits: (D, H, W), decided in the windows of the plan.
        coarse: what the zoom-out view says.
        prompt: the target in voxels of the volume.
        plan: from ``plan_zoom``; beyond its extent nothing comes back.
    """
    clicks = np.rint(prompt.points[prompt.point_labels == 1])
    voxels = [tuple(v) for v in np.clip(clicks, 0, np.subtract(logits.shape, 1)).astype(int).tolist()]
    missed = [voxel for voxel in voxels if logits[voxel] <= 0]
    if not missed or not plan.steps:
        return
    kept = slices(whole(logits.shape) if plan.within is None else plan.within)
    before = torch.full_like(logits, -SURE)
    before[kept] = coarse.full_size()[kept]
    pieces, _ = ndimage.label(((before > 0) & (logits <= 0)).cpu().numpy(), structure=np.ones((3, 3, 3)))
    wanted = {int(pieces[voxel]) for voxel in missed} - {0}
    back = torch.from_numpy(np.isin(pieces, sorted(wanted))).to(logits.device)
    logits[back] = before[back]


def _clicks(
    prompt: Prompt, last: Refinement, first: np.ndarray, shown: np.ndarray
) -> list[tuple[tuple[int, ...], bool]]:
    """New clicks in voxels of the part, with their labels."""
    points = np.rint(prompt.points[last.fresh]).astype(int) - first
    labels = prompt.point_labels[last.fresh] == 1
    inside = (points >= 0).all(axis=1) & (points < shown.shape).all(axis=1)
    return [(tuple(point), bool(label)) for point, label in zip(points[inside], labels[inside], strict=True)]


def _changed_pieces(now: np.ndarray, before: np.ndarray, clicks: list[tuple[tuple[int, ...], bool]]) -> np.ndarray:
    """The connected pieces of the difference in which a click lies, whose own voxel takes the click's label."""
    now = now.copy()
    for voxel, label in clicks:
        now[voxel] = label
    pieces, _ = ndimage.label(now != before, structure=np.ones((3, 3, 3)))
    wanted = {int(pieces[voxel]) for voxel, _ in clicks} - {0}
    return np.isin(pieces, sorted(wanted))
