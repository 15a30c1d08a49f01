"""What is written for one case: a label map, masks, a picture, and a JSON with everything known about them."""

import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray

from ..arguments import as_path
from ..prompts.geometry import Floats, Prompt, box_of, map_box, map_points
from ..vocabulary import Vocabulary
from .files import case_stem, safe_names, staged, write_json, write_nifti
from .preview import draw_preview
from .resolve import plain
from .view import PreviewTarget

logger = logging.getLogger(__name__)

METADATA = Path(__file__).parents[2] / "configs" / "metadata.json"


class SaveResultd(Transform):
    """Write one case, whole or not at all, in place of a former result of the same case.

    Into ``output_dir``/case: the label map case_seg.nii.gz, a 0/1 mask case_NAME.nii.gz per target, case_preview.png,
    and case_seg.json with everything known about them. ``image``, ``masks`` and ``label`` are on the stored grid.

    Args:
        output_dir: made where it is missing.
        vocabulary: gives the targets their colours.
        model: ``size`` of the network and its ``weights``, a ``checkpoints.CheckpointInfo``.
        mode: of the inferer.
    """

    def __init__(self, output_dir: str | Path, vocabulary: Vocabulary, model: Mapping[str, Any], mode: str) -> None:
        self.output_dir = as_path(output_dir, "output_dir") or Path()
        self.vocabulary = vocabulary
        path, sha256 = Path(model["weights"].path), model["weights"].sha256
        self.model = {"name": "SegVol", "size": model["size"], "weights": path.name, "sha256": sha256}
        self.mode = mode
        self.version = json.loads(METADATA.read_text(encoding="utf-8"))["version"]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the case and add ``files``, the paths, the JSON last.

        Raises:
            ValueError: one line, where they cannot be written.
        """
        d, begin = dict(data), perf_counter()
        folder, stem = self.output_dir / d["case"], case_stem(d["case"])
        listing = f"{stem}_seg.json"
        try:
            with staged(folder, listing) as part:
                summary = self._summary(d, stem)
                self._write_volumes(part, stem, d, summary["targets"])
                self._write_preview(part / f"{stem}_preview.png", d)
                summary["seconds"]["write"] = perf_counter() - begin
                summary["files"] = [*sorted(path.name for path in part.iterdir()), listing]
                write_json(part / listing, summary)
        except OSError as error:
            raise ValueError(f"output_dir: {folder} cannot be written ({error.strerror or error})") from error
        _tell(folder, summary)
        return d | {"files": [str(folder / name) for name in summary["files"]]}

    def _summary(self, d: Mapping[Hashable, Any], stem: str) -> dict[str, Any]:
        """The content of the JSON."""
        affine, report = _affine(d), d["report"]
        return {
            "case": d["case"],
            "image": str(d["image_path"]),
            "made_from": d.get("made_from"),
            "shape": list(d["label"].shape[1:]),
            "spacing_mm": nib.affines.voxel_sizes(affine).round(6).tolist(),
            "affine": affine.tolist(),
            "targets": _target_summaries(d, stem, affine),
            "model": self.model,
            "mode": self.mode,
            "seconds": dict(report["seconds"]),
            "encoder_runs": report["encoder_runs"],
            "decoder_runs": report["decoder_runs"],
            "messages": list(d["messages"]),
            "files": [],
            "version": self.version,
        }

    def _write_volumes(
        self, part: Path, stem: str, d: Mapping[Hashable, Any], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        write_nifti(part / f"{stem}_seg.nii.gz", _array(d["label"])[0], _affine(d))
        for target, mask in zip(targets, _array(d["masks"]), strict=True):
            write_nifti(part / target["file"], mask, _affine(d))

    def _write_preview(self, path: Path, d: Mapping[Hashable, Any]) -> None:
        """Draw the normalised image, which is all that is left of it; nothing but air is lost by its crop."""
        image, masks = _array(d["image"])[0], _array(d["masks"])
        if image.shape != masks.shape[1:]:
            raise ValueError(f"image {image.shape} and masks {masks.shape[1:]} differ; Invertd must take both")
        colors = distinct_colors(d["prompts"], d["names"], self.vocabulary)
        rows = zip(d["prompts"], masks, colors, strict=True)
        targets = [PreviewTarget(prompt.name, mask, color, prompt) for prompt, mask, color in rows]
        weights = f"weights {self.model['sha256'][:8]}"
        footer = f"SegVol {self.model['size']}, {weights}, mode {self.mode}, research use only"
        draw_preview(path, image, _affine(d), targets, d["case"], footer)


def distinct_colors(
    prompts: Sequence[Prompt], names: Sequence[str | None], vocabulary: Vocabulary
) -> list[tuple[int, int, int]]:
    """A colour for every target: its structure's, or where that is taken one that follows from the target's name."""
    colors: list[tuple[int, int, int]] = []
    for prompt, name in zip(prompts, names, strict=True):
        color, count = vocabulary.color(name or prompt.text or prompt.name), 1
        while color in colors and count <= len(prompts):
            count += 1
            color = vocabulary.color(f"{prompt.name} {count}")
        colors.append(color)
    return colors


def _target_summaries(d: Mapping[Hashable, Any], stem: str, affine: Floats) -> list[dict[str, Any]]:
    prompts, masks = d["prompts"], _array(d["masks"])
    files = safe_names([prompt.name for prompt in prompts])
    rows = zip(prompts, d["names"], files, masks, d["report"]["targets"], strict=True)
    return [
        {
            "name": prompt.name,
            "value": value,
            "text": prompt.text,
            "encoded_text": encoded,
            "prompts": _both_frames(prompt, affine),
            "file": f"{stem}_{file}.nii.gz",
            **_measure(mask, affine),
            "windows": told["windows"],
            "message": told["message"],
        }
        for value, (prompt, encoded, file, mask, told) in enumerate(rows, start=1)
    ]


def _measure(mask: NDArray[Any], affine: Floats) -> dict[str, Any]:
    """Size and place of a mask (i, j, k) by itself, before overlaps are resolved."""
    box, voxels = box_of(mask), int(np.count_nonzero(mask))
    return {
        "voxels": voxels,
        "ml": round(voxels * abs(float(np.linalg.det(affine[:3, :3]))) / 1000, 6),
        "bounding_box": None if box is None else box.astype(int).reshape(-1).tolist(),
        "empty": voxels == 0,
    }


def _both_frames(prompt: Prompt, affine: Floats) -> dict[str, Any]:
    """Points and box in voxels and in RAS mm; a box there is that of its eight corners."""
    box = None if prompt.box is None else map_box(prompt.box, affine)
    frames = {"voxel": (prompt.points, prompt.box), "ras": (map_points(prompt.points, affine), box)}
    return {
        frame: {
            "points": points.tolist(),
            "point_labels": prompt.point_labels.tolist(),
            "box": None if corners is None else corners.reshape(-1).tolist(),
        }
        for frame, (points, corners) in frames.items()
    }


def _tell(folder: Path, summary: Mapping[str, Any]) -> None:
    for target in summary["targets"]:
        if target["empty"] or target["message"]:
            reason = target["message"] or "nothing found"
            logger.warning("case %s, target %r: %s", summary["case"], target["name"], reason)
    logger.info("case %s: wrote %s", summary["case"], ", ".join(str(folder / name) for name in summary["files"]))


def _affine(d: Mapping[Hashable, Any]) -> Floats:
    return np.asarray(d["label"].affine, dtype=np.float64)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return plain(tensor).cpu().numpy()
