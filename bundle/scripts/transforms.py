"""Dictionary transforms of the bundle: reading a volume, SegVol's normalisation, prompts into the model frame.

Each is a thin loop over a pure function. Orientation and foreground crop are MONAI's own and invertible.
"""

import logging
import os
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import ImageReader, ITKReader, MetaTensor, NibabelReader
from monai.transforms import LoadImage, MapTransform, Transform

from .prompts import to_model_frame
from .voxel_files import check_voxels_beside

logger = logging.getLogger(__name__)
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)  # for every volume the same warning

NIFTI = (".nii", ".nii.gz")
ITK_FILES = (".nrrd", ".mha", ".mhd")
SUFFIXES = (*NIFTI, *ITK_FILES)


def load_volume(path: str | Path) -> MetaTensor:
    """Read one 3D volume: NIfTI, NRRD, MHA, MHD, or a folder with one DICOM series (its k is ITK's order).

    Returns:
        (1, i, j, k) float32 in stored order, with the RAS ``affine``.

    Raises:
        ValueError: one line, for anything that is not one readable 3D volume.
    """
    path = Path(path)
    reader = _reader_for(path)
    try:
        # handed over in the call, the reader is the only one: LoadImage would else let others guess at a damaged file
        volume = LoadImage(image_only=True, ensure_channel_first=True, dtype=np.float32)(path, reader)
    except Exception as error:  # noqa: BLE001  readers raise anything; a user needs one line
        raise ValueError(f"image: {path} cannot be read ({_first_line(error)})") from error
    return volume


def check_volume(volume: torch.Tensor, path: str | Path) -> None:
    """Refuse what cannot be segmented.

    Args:
        volume: (c, i, j, k).
        path: named in the error.

    Raises:
        ValueError: for a volume that is not 3D with one channel, has no usable affine, holds NaN or infinity, or is
            constant.
    """
    if volume.ndim != 4 or volume.shape[0] != 1:
        shape = tuple(volume.shape[1:]) + (tuple(volume.shape[:1]) if volume.shape[0] != 1 else ())
        raise ValueError(f"image: {path} must be one 3D volume; it has {len(shape)} dimensions {shape}")
    affine = np.asarray(getattr(volume, "affine", np.eye(4)), dtype=float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise ValueError(f"image: {path} does not say where its voxels lie (its affine is {affine[:3].tolist()})")
    if not torch.isfinite(volume).all():
        raise ValueError(f"image: {path} holds NaN or infinite voxels; only finite intensities can be segmented")
    if volume.min() == volume.max():
        raise ValueError(f"image: {path} is constant ({float(volume.min()):g}); there is nothing to segment")


def normalise_foreground(volume: torch.Tensor) -> torch.Tensor:
    """SegVol's intensity normalisation (paper section 2.1), shape and type kept.

    Voxels above the mean are the foreground; the volume is clipped to their 0.05 and 99.95 percentiles, brought to
    their zero mean and unit deviation, and scaled to [0, 1].
    """
    array = volume.numpy() if isinstance(volume, torch.Tensor) else volume
    foreground = array[array > array.mean(dtype=np.float64)]
    low, high = np.percentile(foreground, (0.05, 99.95))
    mean, deviation = foreground.mean(dtype=np.float64), max(foreground.std(dtype=np.float64), 1e-8)
    array = (array.clip(low, high) - mean) / deviation
    array = (array - array.min()) / max(array.max() - array.min(), 1e-8)
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


class LoadVolumed(MapTransform):
    """Read volumes: path -> MetaTensor (1, i, j, k); see ``load_volume`` and ``check_volume``.

    Args:
        keys: what to read.
        check: refuse what cannot be segmented; off for label maps, which may be empty.
    """

    def __init__(self, keys: KeysCollection, check: bool = True) -> None:
        super().__init__(keys)
        self.check = check

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            path = d[key]
            d[key] = load_volume(path)
            if self.check:
                check_volume(d[key], path)
        return d


class NormalizeForegroundd(MapTransform):
    """SegVol's intensity normalisation on (1, D, H, W) volumes; see ``normalise_foreground``."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Normalise every key, keeping its geometry.

        Raises:
            ValueError: where the voxels above the mean are all alike, as in a mask; the crop would leave nothing.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            volume = d[key]
            values = normalise_foreground(volume.as_tensor() if isinstance(volume, MetaTensor) else volume)
            if not values.any():
                path = getattr(volume, "meta", {}).get("filename_or_obj", "")
                raise ValueError(f"{key}: {path} holds one intensity above its mean, like a mask; it must be a CT")
            d[key] = MetaTensor(values).copy_meta_from(volume) if isinstance(volume, MetaTensor) else values
        return d


class CheckLabelGridd(MapTransform):
    """Refuse a label map that does not lie on its image's grid, once both have the same orientation.

    Args:
        keys: label keys.
        image_key: the image whose grid is meant.
    """

    def __init__(self, keys: KeysCollection, image_key: str = "image") -> None:
        super().__init__(keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check every key.

        Raises:
            ValueError: where shape or position differ.
        """
        image = data[self.image_key]
        for key in self.key_iterator(dict(data)):
            label = data[key]
            if label.shape != image.shape or not np.allclose(label.affine, image.affine, atol=1e-2):
                raise ValueError(f"{key}: its grid {tuple(label.shape[1:])} is not that of the image")
        return dict(data)


class PromptsToModelFramed(Transform):
    """Place a case's prompts in its image: ``document`` -> ``prompts`` (stored frame) and ``model_prompts``.

    Follows the last spatial transform of the image; ``document`` is parsed by then (``prompts.parse_document``).

    Args:
        text_encoder: resolves every text to a name that can be encoded; a text that cannot is dropped with a
            message where the target has a point or box, and refused where it has none.
        image_key: the image, a MetaTensor with its ``original_affine``.
    """

    def __init__(self, text_encoder: Any, image_key: str = "image") -> None:
        self.text_encoder = text_encoder
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add ``prompts``, ``model_prompts``, ``names`` (resolved texts or None) and ``messages``."""
        d = dict(data)
        image = d[self.image_key]
        stored_affine = np.asarray(image.meta["original_affine"], dtype=float)
        stored_shape = tuple(int(n) for n in image.meta["spatial_shape"])
        prompts = d["document"].to_voxel(stored_affine, stored_shape)
        matrix = np.linalg.inv(np.asarray(image.affine, dtype=float)) @ stored_affine
        model_prompts, messages = to_model_frame(prompts, matrix, tuple(image.shape[1:]))
        names = []
        for prompt in model_prompts:
            name, message = self._resolve(prompt)
            names.append(name)
            messages += [message] if message else []
        for message in messages:
            logger.warning("%s", message)
        return d | {"prompts": prompts, "model_prompts": model_prompts, "names": names, "messages": messages}

    def _resolve(self, prompt: Any) -> tuple[str | None, str | None]:
        if prompt.text is None:
            return None, None
        try:
            return self.text_encoder.resolve(prompt.text), None
        except ValueError as error:
            if not len(prompt.points) and prompt.box is None:
                raise
            return None, f"target {prompt.name!r}: the text is ignored, its points and box are used; {error}"


def _reader_for(path: Path) -> ImageReader:
    if not os.path.exists(path):  # pathlib's raises for a name that is too long
        raise ValueError(f"image: {path} does not exist")
    if path.is_dir():
        _one_series(path)
        return ITKReader()
    if path.name.lower().endswith(NIFTI):
        return NibabelReader()
    if path.suffix.lower() in ITK_FILES:
        check_voxels_beside(path)
        return ITKReader()
    raise ValueError(f"image: {path} is of no known kind; allowed are {', '.join(SUFFIXES)} or a DICOM series folder")


def _one_series(folder: Path) -> None:
    """Refuse a folder that is not one series of evenly spaced slices; ITK would stretch it over the gap."""
    gaps = np.diff(sorted(slice_position(file) for file in series_files(folder)))
    if len(gaps) and gaps.max() - gaps.min() > max(0.1, 0.05 * float(np.median(gaps))):
        apart = f"{gaps.min():g} to {gaps.max():g} mm apart"
        raise ValueError(f"image: the slices of {folder} lie {apart}; one is missing, or there twice")


def _only_series(names: Any, folder: Path) -> str:
    found = names.GetSeriesUIDs()
    if len(found) != 1:
        raise ValueError(f"image: the folder {folder} holds {len(found)} DICOM series; it must hold exactly one")
    return str(found[0])


def dicom_series(folder: Path) -> Sequence[str]:
    """Identifiers of the DICOM series that lie directly in ``folder``, as ITKReader tells them apart."""
    return _series_in(folder).GetSeriesUIDs()


def series_files(folder: Path) -> list[str]:
    """Files of the one DICOM series in ``folder``, in the order of k.

    Raises:
        ValueError: for none or several series.
    """
    names = _series_in(folder)
    return [str(file) for file in names.GetFileNames(_only_series(names, folder))]


def _series_in(folder: Path) -> Any:
    import itk

    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")
    names.SetDirectory(str(folder))
    return names


def slice_position(file: str) -> float:
    """Where a slice lies along its normal, in mm."""
    import itk

    header = itk.GDCMImageIO.New()
    header.SetFileName(file)
    header.ReadImageInformation()
    return float(np.dot([header.GetOrigin(axis) for axis in range(3)], header.GetDirection(2)))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not re.fullmatch(r"\S+:\d+:", line)]  # ITK begins with its own source file
    first = lines[0] if lines else type(error).__name__
    return re.sub(r"\(0x[0-9a-f]+\)", "", first)[:160]  # an address would be another in every run
