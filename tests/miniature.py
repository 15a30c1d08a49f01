"""Miniature trees of every public data set's layout, written by hand from what the sets themselves publish.

A scene is a few ellipsoids in world space (RAS mm), each at a place of its own, those of a left organ on the patient's
left. A grid says how a set stores it. Nothing here knows the catalogue.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
from PIL import Image

DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
SIZE = {"R": (16, 2.0), "A": (14, 2.5), "S": (12, 3.0)}  # voxels and mm along each world axis
CENTRE = np.array([4.0, -6.0, 40.0])  # of every grid, in RAS mm
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Scene = dict[str, tuple[np.ndarray, np.ndarray]]
"""Name -> centre and radii in RAS mm; what comes later is painted over what comes earlier."""


@dataclass(frozen=True)
class Grid:
    """Where voxels lie: shape (i, j, k) and affine to RAS mm."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    def world(self) -> np.ndarray:
        """Place (i, j, k, 3) of every voxel centre."""
        return world(self.shape, self.affine)


def world(shape: Iterable[int], affine: np.ndarray) -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def grid(axcodes: str = "RAS", tilt: float = 0.0) -> Grid:
    """A grid whose axes run in these directions; ``tilt`` turns it about the patient's length, in degrees."""
    opposite = {"L": "R", "P": "A", "I": "S"}
    sizes = [SIZE[opposite.get(code, code)] for code in axcodes]
    axes = np.array([DIRECTIONS[code] for code in axcodes], float).T * [mm for _, mm in sizes]
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    axes = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ axes
    shape = tuple(n for n, _ in sizes)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = CENTRE - axes @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def scene(*names: str, inside: Mapping[str, str] | None = None) -> Scene:
    """Structures at places of their own; ``inside`` puts one into another, off its middle."""
    places = {x: [np.array([x, y, z]) for z in (-12, 0, 12) for y in (-11, 0, 11)] for x in (-10, 0, 10)}
    found: Scene = {}
    for name in names:
        if inside and name in inside:
            centre, radii = found[inside[name]]
            found[name] = centre + [1.0, 1.5, 0], radii / 2
            continue
        side = -10 if "left" in name.split() else 10 if "right" in name.split() else 0
        column = next(places[x] for x in (side, 10, -10) if places[x])
        found[name] = CENTRE + column.pop(0), np.array([4.0, 5.0, 5.5])
    return found


def masks(objects: Scene, points: np.ndarray) -> dict[str, np.ndarray]:
    """Which points (i, j, k, 3) lie in each structure, overlaps and all."""
    return {name: (((points - c) / r) ** 2).sum(axis=-1) <= 1 for name, (c, r) in objects.items()}


def seen(objects: Scene, points: np.ndarray) -> dict[str, np.ndarray]:
    """Which points show each structure, the later ones being painted over the earlier."""
    free = np.ones(points.shape[:3], bool)
    found: dict[str, np.ndarray] = {}
    for name, mask in reversed(masks(objects, points).items()):
        shared = name.split("#")[0]  # "liver tumor#2" is a second one
        found[shared] = found.get(shared, np.zeros_like(mask)) | (mask & free)
        free &= ~mask
    return found


def intensities(points: np.ndarray) -> np.ndarray:
    """A ramp that is another in every direction, so that no axis can be turned or exchanged unseen."""
    return np.rint(points @ [11.0, -5.0, 3.0]).astype(np.int16)


def label_map(objects: Scene, values: Mapping[str, int], where: Grid) -> np.ndarray:
    label = np.zeros(where.shape, np.uint8)
    for name, mask in masks(objects, where.world()).items():
        label[mask] = values[name]
    return label


# ---------------------------------------------------------------- formats


def write(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """NIfTI, NRRD, MHA or MHD, as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(voxels, affine), path)
    else:
        itk.imwrite(itk_image(voxels, affine), str(path), True)


def itk_image(voxels: np.ndarray, affine: np.ndarray) -> itk.Image:
    image = itk.image_from_array(np.ascontiguousarray(voxels.T))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    return image


def write_dicom(folder: Path, voxels: np.ndarray, affine: np.ndarray, name: Callable[[int], str]) -> None:
    """One file a slice; ``name`` numbers them along k."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = f"1.2.826.0.1.3680043.2.1125.{zlib.crc32(str(folder).encode())}"
    for k in range(voxels.shape[2]):
        moved = affine.copy()
        moved[:3, 3] += affine[:3, 2] * k
        image = itk_image(voxels[:, :, k : k + 1].astype(np.int16), moved)
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0060": "CT",
            "0020|000d": f"{uid}.1",
            "0020|000e": f"{uid}.2",
            "0020|0013": str(k + 1),
        }
        writer = itk.GDCMImageIO.New(KeepOriginalUID=True)
        meta = image.GetMetaDataDictionary()
        for tag, text in tags.items():
            meta[tag] = text
        image.SetMetaDataDictionary(meta)
        part = folder / f"{k}.part.dcm"
        itk.imwrite(image, str(part), imageio=writer)
        part.rename(folder / name(k))


def write_pictures(folder: Path, mask: np.ndarray, name: Callable[[int], str]) -> None:
    """One black and white PNG a slice: rows are j, columns are i."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(mask.shape[2]):
        Image.fromarray(mask[:, :, k].T.astype(np.uint8) * 255).save(folder / name(k))
