"""Zoom-out-zoom-in inference (SegVol, section 2.4) for any number of targets of one volume.

A coarse view of the whole volume says where a target is; windows at full resolution there draw it. Encoding a view
costs far more than decoding a prompt, so each view is encoded once and decoded for every target that needs it.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch.nn import functional as F

from .plans import (
    Plan,
    Refinement,
    plan_fit,
    plan_published,
    plan_refine,
    plan_resize,
    plan_sliding_window,
    plan_zoom,
    published_zoom_out_prompt,
)
from .prompts import Prompt, rescale
from .refine import keep_clicked, mend
from .windows import CoarseView, Resize, Triple, Window, slices, whole

logger = logging.getLogger(__name__)

Mode = Literal["zoom", "fit", "published", "resize", "sliding_window"]
Encode = Callable[[torch.Tensor, Triple | None], torch.Tensor]

# Logit where no view has a say: background beyond doubt (probability 5e-5), yet finite, so averages stay meaningful.
BACKGROUND = -10.0
MISSED = "the mask leaves out {} of {} positive points"


class ZoomOutZoomInInferer(Inferer):
    """Segments the targets of one volume, view by view.

    Args:
        roi_size: (d, h, w) voxels of a view, the network's window.
        mode: ``zoom``: coarse view, then windows where it found something; ``fit``: coarse view, then one view of the
            target with a margin, resized to the window; ``published``: as ``zoom``, but as the released code does it,
            quirks included; ``resize``: the coarse view alone; ``sliding_window``: windows over the
            whole volume and no coarse view.
        overlap: least share of a window that its neighbour shows too, in [0, 1).

    Raises:
        ValueError: for an argument out of its range.
    """

    def __init__(self, roi_size: Sequence[int], mode: Mode = "zoom", overlap: float = 0.5) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode is {mode!r}; allowed are {', '.join(map(repr, get_args(Mode)))}")
        if len(roi_size) != 3 or min(roi_size) < 1:
            raise ValueError(f"roi_size is {list(roi_size)}; it takes three lengths (d, h, w) of at least 1 voxel")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap is {overlap}; it must be at least 0 and below 1")
        self.roi_size: Triple = (int(roi_size[0]), int(roi_size[1]), int(roi_size[2]))
        self.mode = mode
        self.overlap = overlap

    @torch.no_grad()
    def __call__(
        self,
        inputs: torch.Tensor,
        network: Any,
        prompts: Sequence[Prompt],
        text_vectors: Sequence[torch.Tensor | None],
        encode: Encode | None = None,
        report: dict[str, Any] | None = None,
        refine: Sequence[dict[str, Any]] | None = None,
    ) -> torch.Tensor:
        """Logits of every target.

        Args:
            inputs: (1, 1, D, H, W) volume in [0, 1].
            network: ``encode(window)`` and ``decode(embedding, points, point_labels, boxes, text)``.
            prompts: one per target, in voxels of the volume.
            text_vectors: (text_dim,) per target, or None.
            encode: ``encode(window, start)`` in place of the network's own, for a memory that outlives the call:
                ``start`` is the window's place in the volume, None for the zoom-out view.
            report: receives ``encoder_runs`` and ``decoder_runs`` (calls), ``seconds`` for both, and for each of
                ``targets`` its number of ``windows``, where they begin (``starts``) and a ``message`` or None.
            refine: per target the fields of a ``Refinement``, the last mask, to be mended around new clicks instead of
                a segmentation from scratch; see ``refine.mend``.

        Returns:
            (1, targets, D, H, W) float32 logits; a mask is where they are above 0.

        Raises:
            ValueError: one line, for inputs of another shape, or targets and prompts that do not match.
        """
        image: torch.Tensor = convert_to_tensor(inputs, dtype=torch.float32, track_meta=False)
        _check(image, prompts, text_vectors)
        halves = _Halves(network, encode)
        logits = image.new_full((1, len(prompts), *image.shape[2:]), BACKGROUND)
        last = None if refine is None else [Refinement(**fields) for fields in refine]
        coarse: list[CoarseView] = []
        if last is not None:
            plans = self._plan_refinements(image, prompts, last)
        elif self.mode == "sliding_window":
            plans = self._plan_without_coarse(image, prompts, text_vectors)
        else:
            plans, coarse = self._zoom_out(image, halves, prompts, text_vectors, logits[0])
        self._zoom_in(image, halves, plans, text_vectors, logits[0])
        self._zoom_to_fit(image, halves, plans, text_vectors, logits[0])
        if self.mode == "zoom" and coarse:
            for result, view, prompt, plan in zip(logits[0], coarse, prompts, plans, strict=True):
                keep_clicked(result, view, prompt, plan)
        if last is not None:
            for result, refinement, prompt, plan in zip(logits[0], last, prompts, plans, strict=True):
                mend(result, refinement, prompt, plan)
        if report is not None:
            halves.write(report)
            report["targets"] = [_told(*target) for target in zip(plans, prompts, logits[0], strict=True)]
        return logits

    def _plan_refinements(
        self, image: torch.Tensor, prompts: Sequence[Prompt], last: Sequence[Refinement]
    ) -> list[Plan]:
        return [
            plan_refine(prompt, refinement, image.shape[2:], self.roi_size, self.overlap)
            for prompt, refinement in zip(prompts, last, strict=True)
        ]

    def _plan_without_coarse(
        self, image: torch.Tensor, prompts: Sequence[Prompt], text_vectors: Sequence[torch.Tensor | None]
    ) -> list[Plan]:
        return [
            plan_sliding_window(prompt, vector is not None, image.shape[2:], self.roi_size, self.overlap)
            for prompt, vector in zip(prompts, text_vectors, strict=True)
        ]

    def _zoom_out(
        self,
        image: torch.Tensor,
        halves: "_Halves",
        prompts: Sequence[Prompt],
        text_vectors: Sequence[torch.Tensor | None],
        results: torch.Tensor,
    ) -> tuple[list[Plan], list[CoarseView]]:
        """Write the coarse logits of every target into ``results`` (targets, D, H, W) and plan its windows."""
        shape, plans, views = image.shape[2:], list[Plan](), list[CoarseView]()
        view = F.interpolate(image, size=self.roi_size, mode="nearest-exact")
        embedding = halves.encode(view, None)
        published = self.mode == "published"
        to_grid = published_zoom_out_prompt if published else rescale
        back: Resize = "nearest" if published else "nearest-exact"
        for prompt, vector, result in zip(prompts, text_vectors, results, strict=True):
            low = halves.decode(embedding, to_grid(prompt, shape, self.roi_size), vector)
            coarse = CoarseView(low, shape, back)
            plan = self._plan(prompt, coarse, shape)
            kept = slices(whole(shape) if plan.within is None else plan.within)
            result[kept] = coarse.full_size()[kept]
            plans.append(plan)
            views.append(coarse)
        return plans, views

    def _plan(self, prompt: Prompt, coarse: CoarseView, shape: Sequence[int]) -> Plan:
        if self.mode == "resize":
            return plan_resize(coarse, shape)
        if self.mode == "fit":
            return plan_fit(prompt, coarse, shape, self.roi_size)
        plan = plan_published if self.mode == "published" else plan_zoom
        return plan(prompt, coarse, shape, self.roi_size, self.overlap)

    def _zoom_in(
        self,
        image: torch.Tensor,
        halves: "_Halves",
        plans: Sequence[Plan],
        text_vectors: Sequence[torch.Tensor | None],
        results: torch.Tensor,
    ) -> None:
        """Replace ``results`` (targets, D, H, W) by the mean of the window logits where windows lie."""
        wanted = _by_window(plans)
        logger.debug("zoom-in: %d windows for %d targets", len(wanted), len(plans))
        for plan, result in zip(plans, results, strict=True):
            for window, _ in plan.steps:
                result[window.in_volume] = 0
        volume = whole(image.shape[2:])
        for window in sorted(wanted):
            plain = window == Window.at(window.start, self.roi_size, volume)
            embedding = halves.encode(window.cut(image, self.roi_size), window.start, shareable=plain)
            for target, prompt in wanted[window]:
                local = halves.decode(embedding, prompt, text_vectors[target])
                results[target][window.in_volume] += local[window.in_window]
        for plan, result in zip(plans, results, strict=True):
            _average(result, [window for window, _ in plan.steps])

    def _zoom_to_fit(
        self,
        image: torch.Tensor,
        halves: "_Halves",
        plans: Sequence[Plan],
        text_vectors: Sequence[torch.Tensor | None],
        results: torch.Tensor,
    ) -> None:
        """Replace ``results`` (targets, D, H, W) by the logits of fitted views where such lie."""
        embeddings: dict[bytes, torch.Tensor] = {}
        for plan, vector, result in zip(plans, text_vectors, results, strict=True):
            if plan.fitted is None:
                continue
            extent, prompt = plan.fitted
            place, key = slices(extent), extent.tobytes()
            if key not in embeddings:
                view = F.interpolate(
                    image[(slice(None), slice(None), *place)], size=self.roi_size, mode="nearest-exact"
                )
                embeddings = {key: halves.encode(view, None, shareable=False)}
            low = halves.decode(embeddings[key], prompt, vector)
            result[place] = F.interpolate(low[None, None], size=result[place].shape, mode="trilinear")[0, 0]


class _Halves:
    """The expensive and the cheap half of the network, counted and timed."""

    def __init__(self, network: Any, encode: Encode | None) -> None:
        self._network = network
        self._encode = encode
        self._runs = {"encode": 0, "decode": 0}
        self._seconds = {"encode": 0.0, "decode": 0.0}

    def encode(self, view: torch.Tensor, start: Triple | None, shareable: bool = True) -> torch.Tensor:
        """Embedding of a view; a view that its start does not describe in full bypasses the caller's memory."""
        if self._encode is None or not shareable:
            return self._timed("encode", self._network.encode, view)
        return self._timed("encode", self._encode, view, start)

    def decode(self, embedding: torch.Tensor, prompt: Prompt, vector: torch.Tensor | None) -> torch.Tensor:
        """Logits (d, h, w) of a view for a prompt in its voxels."""
        tensors = _as_tensors(prompt, vector, embedding.device)
        return self._timed("decode", self._network.decode, embedding, **tensors)[0, 0].float()

    def write(self, report: dict[str, Any]) -> None:
        """Add what was counted to a report."""
        report.update(encoder_runs=self._runs["encode"], decoder_runs=self._runs["decode"])
        report.setdefault("seconds", {}).update(self._seconds)

    def _timed(self, half: str, call: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        begin = perf_counter()
        result = call(*args, **kwargs)
        self._runs[half] += 1
        self._seconds[half] += perf_counter() - begin
        return result


def _check(image: torch.Tensor, prompts: Sequence[Prompt], text_vectors: Sequence[torch.Tensor | None]) -> None:
    if image.ndim != 5 or image.shape[:2] != (1, 1) or not image.numel():
        raise ValueError(f"inputs has shape {tuple(image.shape)}; it must be (1, 1, D, H, W) with at least one voxel")
    if not prompts:
        raise ValueError("prompts is empty; give at least one target")
    if len(prompts) != len(text_vectors):
        raise ValueError(f"{len(prompts)} prompts came with {len(text_vectors)} text vectors; give one (or None) each")
    for prompt, vector in zip(prompts, text_vectors, strict=True):
        if vector is None and not replace(prompt, text=None).is_usable:
            raise ValueError(f"target {prompt.name!r} has no prompt; give it a text, a positive point or a box")


def _as_tensors(prompt: Prompt, vector: torch.Tensor | None, device: torch.device) -> dict[str, torch.Tensor | None]:
    """A prompt as the network takes it: one prompt for one view."""

    def tensor(values: np.ndarray, *shape: int) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device).reshape(1, *shape)

    has_points = len(prompt.points) > 0
    return {
        "points": tensor(prompt.points, -1, 3) if has_points else None,
        "point_labels": tensor(prompt.point_labels, -1) if has_points else None,
        "boxes": None if prompt.box is None else tensor(prompt.box, 6),
        "text": None if vector is None else vector.to(device=device, dtype=torch.float32).reshape(1, -1),
    }


def _told(plan: Plan, prompt: Prompt, result: torch.Tensor) -> dict[str, Any]:
    """What a report says of a target with the logits (D, H, W)."""
    starts, message = [window.start for window, _ in plan.steps], plan.message or _missed(prompt, result)
    return {"windows": len(plan.steps) + (plan.fitted is not None), "starts": starts, "message": message}


def _missed(prompt: Prompt, result: torch.Tensor) -> str | None:
    """What to tell where the mask is not on all that the user clicked; None where it is."""
    clicks = np.rint(prompt.points[prompt.point_labels == 1])
    voxels = np.clip(clicks, 0, np.subtract(result.shape, 1)).astype(int)
    missed = int((result[tuple(torch.from_numpy(voxels.T))] <= 0).sum())
    return MISSED.format(missed, len(voxels)) if missed else None


def _by_window(plans: Sequence[Plan]) -> dict[Window, list[tuple[int, Prompt]]]:
    """For each distinct window the targets to decode in it, with their prompts there."""
    wanted = defaultdict(list)
    for target, plan in enumerate(plans):
        for window, prompt in plan.steps:
            wanted[window].append((target, prompt))
    return wanted


def _average(result: torch.Tensor, windows: Sequence[Window]) -> None:
    """Divide the sums in ``result`` (D, H, W) by the number of windows at each voxel, in place."""
    if len(windows) < 2:
        return
    first = np.min([window.first for window in windows], axis=0)
    last = np.max([window.last for window in windows], axis=0)
    sums = result[slices(np.array([first, last]))]
    counts = torch.zeros_like(sums, dtype=torch.int16)
    for window in windows:
        counts[slices(window.extent - first)] += 1
    sums /= counts.clamp_(min=1)
