"""Prepared cases become prompted views, true masks and pseudo masks alike (Algorithm 1 of the paper, section B)."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch.utils.data import Dataset

from ..arguments import exit_on_error
from ..text_encoder import TextTable
from ..vocabulary import Vocabulary
from .dense import class_map
from .prepared import PreparedCase
from .sampling import sample_box, sample_points, sample_pseudo_box
from .views import View, draw_view

RIGHT = 2  # the axis of (D, H, W) that runs from left to right
NOTHING = -1  # a label value that no voxel has

PSEUDO_EXTRA = (4, 10)  # further positive points of a pseudo mask, as published
STACKED = ("image", "classes")
JOINED = (
    *("masks", "points", "point_labels", "boxes"),
    *("pseudo_point_masks", "pseudo_points", "pseudo_point_labels", "pseudo_box_masks", "pseudo_boxes"),
)


class PromptedViews(Dataset):
    """Random views of prepared cases, each with prompts for some of its structures and for some pseudo masks.

    A view is drawn from (seed, epoch, index) alone, so that a resumed run sees what an unbroken one would.

    Args:
        cases: labelled cases, with pseudo masks where ``pseudo_masks`` asks for them.
        roi_size: (d, h, w) of a view.
        length: views per epoch.
        targets: structures per view, each with its prompts.
        pseudo_masks: pseudo masks per view, an even number: one half is asked for by points, the other by boxes.
        seed: of all random draws.
        whole: share of views that show the whole volume (the zoom-out view).
        window: share of views at full resolution (the zoom-in view).
        fit: share of views of one structure with a margin (the zoom-to-fit view); the rest has any size.
        flip: probability of mirroring, for each axis; names change sides with it (``Vocabulary.mirrored``).
        absent: share of targets that name a structure that is labelled in the case but not in the view.
        jitter: boxes move by up to this share of their length.
        single: share of point prompts that are one click.
        max_points: at most so many further points of each sign.
        intensity: largest random shift and scale of intensities, drawn in half of the views.
        minimum_voxels: a structure counts as present in a view from this size on.
        table: names as rows, for dense supervision; None leaves ``classes`` out.
        vocabulary: knows by which names a structure and its counterpart go.

    Raises:
        ValueError: for an odd number of pseudo masks.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        roi_size: Sequence[int],
        length: int,
        targets: int = 2,
        pseudo_masks: int = 0,
        seed: int = 0,
        whole: float = 0.4,
        window: float = 0.4,
        fit: float = 0.0,
        flip: float = 0.0,
        absent: float = 0.1,
        jitter: float = 0.1,
        single: float = 0.5,
        max_points: int = 10,
        intensity: float = 0.1,
        minimum_voxels: int = 20,
        table: TextTable | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        with exit_on_error():
            if pseudo_masks < 0 or pseudo_masks % 2:
                raise ValueError(f"pseudo_masks is {pseudo_masks}; it takes 0 or an even number, 6 as published")
            if min(whole, window, fit) < 0 or whole + window + fit > 1:
                raise ValueError(f"whole_share {whole}, window_share {window} and fit_share {fit} are shares of 1")
        self.cases = list(cases)
        self.vocabulary = vocabulary or Vocabulary(())
        self.rows = None if table is None else _rows(table, self.cases, self.vocabulary)
        self.roi_size = tuple(int(n) for n in roi_size)
        self.length = length
        self.targets = targets
        self.pseudo_masks = pseudo_masks
        self.seed = seed
        self.shares = {"whole": whole, "window": window, "fit": fit, "flip": flip}
        self.absent = absent
        self.jitter = jitter
        self.single = single
        self.max_points = max_points
        self.intensity = intensity
        self.minimum_voxels = minimum_voxels
        self.epoch = 0

    def attach(self, engine: Engine) -> None:
        """As a handler: every epoch draws other views."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda e: setattr(self, "epoch", e.state.epoch))

    def __len__(self) -> int:
        """Views per epoch."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One view.

        ``image`` (1, *roi); of K true masks ``masks`` (K, 1, *roi), ``points``, ``point_labels``, ``boxes`` and
        ``names``; of M pseudo masks by points ``pseudo_point_masks`` (M, 1, *roi), ``pseudo_points`` and
        ``pseudo_point_labels``, and of M by boxes ``pseudo_box_masks`` and ``pseudo_boxes``; ``draw``, a number for
        choices that concern a whole batch; with a table ``classes`` (``dense.class_map``).
        """
        rng = np.random.default_rng((self.seed, self.epoch, index))
        case = self.cases[int(rng.integers(len(self.cases)))]
        centre = case.centre(rng) if rng.random() < 2 / 3 else None
        extent = case.extent(rng) if self.shares["fit"] else None
        view = draw_view(case.image.shape, self.roi_size, centre, rng, extent=extent, **self.shares)
        label = view.of(case.label)
        names = self._names_in(view, case)
        item = {
            "image": self._augment(view.of(case.image), rng).unsqueeze(0),
            **self._true_prompts(label, names, rng),
            "draw": int(rng.integers(2**31)),
        }
        if self.pseudo_masks:
            item |= self._pseudo_prompts(view.of(case.pseudo_mask), rng)
        if self.rows is not None:
            item["classes"] = class_map(label, names, self.rows, case.complete)
        return item

    def _true_prompts(
        self, label: torch.Tensor, names: Mapping[int, str | None], rng: np.random.Generator
    ) -> dict[str, Any]:
        chosen = self._choose(label, names, rng)
        masks = [label == value for value in chosen]
        most = (0, self.max_points)
        drawn = [sample_points(mask, rng, most, most, self.single) for mask in masks]
        return {
            "masks": torch.stack(masks).unsqueeze(1),
            "points": torch.stack([points for points, _ in drawn]),
            "point_labels": torch.stack([labels for _, labels in drawn]),
            "boxes": torch.stack([sample_box(mask, rng, self.jitter) for mask in masks]),
            "names": [names.get(value) for value in chosen],
        }

    def _pseudo_prompts(self, regions: torch.Tensor, rng: np.random.Generator) -> dict[str, Any]:
        """Pseudo masks of the view, points and boxes in turn; without any the masks are empty, and weigh nothing."""
        counts = torch.bincount(regions.reshape(-1))
        there = [n for n in range(1, len(counts)) if counts[n] >= self.minimum_voxels]
        chosen = [int(rng.choice(there)) if there else 0 for _ in range(self.pseudo_masks)]
        by_point = [regions == n if n else torch.zeros_like(regions, dtype=torch.bool) for n in chosen[::2]]
        drawn = [sample_points(mask, rng, PSEUDO_EXTRA, (0, self.max_points)) for mask in by_point]
        nothing = torch.zeros(6, device=regions.device), torch.zeros_like(regions, dtype=torch.bool)
        by_box = [sample_pseudo_box(regions, n, rng, self.jitter) if n else nothing for n in chosen[1::2]]
        return {
            "pseudo_point_masks": torch.stack(by_point).unsqueeze(1),
            "pseudo_points": torch.stack([points for points, _ in drawn]),
            "pseudo_point_labels": torch.stack([labels for _, labels in drawn]),
            "pseudo_box_masks": torch.stack([mask for _, mask in by_box]).unsqueeze(1),
            "pseudo_boxes": torch.stack([box for box, _ in by_box]),
        }

    def _choose(self, label: torch.Tensor, names: Mapping[int, str | None], rng: np.random.Generator) -> list[int]:
        counts = torch.bincount(label.reshape(-1).clamp(min=0)).tolist()
        present = [v for v, n in enumerate(counts) if n and v in names and n >= self.minimum_voxels]
        missing = [v for v, name in names.items() if name is not None and (v >= len(counts) or not counts[v])]
        chosen = []
        for _ in range(self.targets):
            pool = missing if missing and (not present or rng.random() < self.absent) else present
            chosen.append(int(rng.choice(pool or list(names) or [NOTHING])))
        return chosen

    def _names_in(self, view: View, case: PreparedCase) -> Mapping[int, str | None]:
        """The names of the case as the view shows it: mirrored, its sides change places."""
        if RIGHT not in view.flips:
            return case.names
        return {value: name and self.vocabulary.mirrored(name) for value, name in case.names.items()}

    def _augment(self, image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        if rng.random() < 0.5:
            scale, shift = rng.uniform(-self.intensity, self.intensity, 2)
            image = (image * (1 + float(scale)) + float(shift)).clamp(0, 1)
        return image


def collate_views(views: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack what a view has once; line up what it has for each prompt, one view after another."""
    batch: dict[str, Any] = {key: torch.stack([v[key] for v in views]) for key in STACKED if key in views[0]}
    batch |= {key: torch.cat([v[key] for v in views]) for key in JOINED if key in views[0]}
    batch["draw"] = views[0]["draw"]
    batch["names"] = [name for v in views for name in v["names"]]
    return batch


def _rows(table: TextTable, cases: Sequence[PreparedCase], vocabulary: Vocabulary) -> dict[str, int]:
    """The row of every name of the cases, mirrored ones too, that the table knows."""
    with exit_on_error():
        if not isinstance(table, TextTable):
            raise ValueError("dense_weight needs a closed list of names, which --size small has; base takes any text")
    rows = {}
    names = {name for case in cases for name in case.names.values() if name}
    for name in names | {vocabulary.mirrored(name) for name in names}:
        with contextlib.suppress(ValueError):
            rows[name] = table.names.index(table.resolve(name))
    return rows
