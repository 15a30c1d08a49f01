"""What the pseudo masks of a volume cost on one core, and that the compiled union-find answers like a plain one.

    python benchmarks/pseudo_masks.py [--shape 32 256 256] [--repeats 3] [--small 12 24 24]

The first table times each rule and neighbourhood on a generated phantom: the segmentation with its smoothing, and the
whole of ``pseudo_mask`` with reduction, cleaning and the way back. The second sets the segmentation of a small volume
beside the same in plain Python, whose labels must be equal. Compiling is done before. Seconds are those of the
processor, medians of the repeats: what else runs on the machine counts as little as may be.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bundle"))

from scripts.phantom import make_phantom  # noqa: E402
from scripts.training.felzenszwalb import OFFSETS, felzenszwalb  # noqa: E402
from scripts.training.pseudo_masks import SCALE, pseudo_mask  # noqa: E402
from scripts.transforms import normalise_foreground  # noqa: E402

SIGMA, PERCENTILE, MINIMUM_SIZE = 0.8, 25, 1000
KINDS = tuple(product(("adaptive", "percentile"), OFFSETS))


def main() -> None:
    """Time every rule and neighbourhood and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(32, 256, 256))
    parser.add_argument("--small", type=int, nargs=3, default=(12, 24, 24))
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _print_volume(arguments.shape, arguments.repeats)
    _print_comparison(arguments.small, arguments.repeats)


def _print_volume(shape: Sequence[int], repeats: int) -> None:
    image, label = phantom(shape)
    volume = image / image[image > image.mean()].std()
    sys.stdout.write(f"{' x '.join(map(str, shape))} voxels\n\n")
    sys.stdout.write("| rule | neighbours | segmentation, s | regions | pseudo masks in all, s | masks |\n")
    sys.stdout.write("|---|---|---|---|---|---|\n")
    for rule, neighbours in KINDS:
        settings: dict[str, Any] = {"rule": rule, "neighbours": neighbours}
        seconds, labels = timed(lambda s=settings: felzenszwalb(volume, SCALE, SIGMA, MINIMUM_SIZE, **s), repeats)
        in_all, masks = timed(lambda s=settings: pseudo_mask(image, label, shape, **s), repeats)
        row = (rule, neighbours, f"{seconds:.2f}", labels.max() + 1, f"{in_all:.2f}", masks.max())
        sys.stdout.write(f"| {' | '.join(map(str, row))} |\n")
        sys.stdout.flush()


def _print_comparison(shape: Sequence[int], repeats: int) -> None:
    volume = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 1).astype(np.float32)
    sys.stdout.write(f"\n{' x '.join(map(str, shape))} voxels\n\n")
    sys.stdout.write("| rule | neighbours | plain Python, s | compiled, s | regions |\n|---|---|---|---|---|\n")
    for rule, neighbours in KINDS:
        settings = (volume, 1.0, SIGMA, 20, rule, PERCENTILE, neighbours)
        plain, expected = timed(lambda s=settings: plain_felzenszwalb(*s), repeats)
        compiled, labels = timed(lambda s=settings: felzenszwalb(*s), repeats)
        if not np.array_equal(labels, expected):
            raise SystemExit(f"the labels of {rule}, {neighbours} differ from those of plain Python")
        sys.stdout.write(f"| {rule} | {neighbours} | {plain:.3f} | {compiled:.4f} | {labels.max() + 1} |\n")


def phantom(shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Image in [0, 1] and label of a generated trunk, both (D, H, W)."""
    made = make_phantom(3000, (shape[2], shape[1], shape[0]))
    image, label = (np.ascontiguousarray(array.T) for array in (made.image, made.label))
    return normalise_foreground(torch.from_numpy(image.astype(np.float32))).numpy(), label


def timed(job: Callable[[], np.ndarray], repeats: int) -> tuple[float, np.ndarray]:
    """Median seconds of the processor, without a first run that compiles, and what the job returns."""
    answer, seconds = job(), []
    for _ in range(repeats):
        begin = time.process_time()
        job()
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds), answer


def plain_felzenszwalb(
    volume: np.ndarray, scale: float, sigma: float, minimum_size: int, rule: str, percentile: float, neighbours: str
) -> np.ndarray:
    """``felzenszwalb`` as one would write it down: lists, sorted edges, sets of voxels that are merged."""
    smooth = ndimage.gaussian_filter(np.asarray(volume, np.float32), sigma) if sigma else np.asarray(volume, np.float32)
    edges = []
    for offset in OFFSETS[neighbours]:
        for voxel in np.ndindex(smooth.shape):
            other = tuple(a + b for a, b in zip(voxel, offset, strict=True))
            if all(0 <= a < n for a, n in zip(other, smooth.shape, strict=True)):
                edges.append((float(abs(smooth[other] - smooth[voxel])), voxel, other))
    edges.sort(key=lambda edge: edge[0])
    weighty = np.array([weight for weight, _, _ in edges if weight], np.float32)
    bound = float(np.percentile(weighty, percentile)) if len(weighty) else np.inf
    region = {voxel: [voxel] for voxel in np.ndindex(smooth.shape)}  # the list is shared by all of its voxels
    inner = {voxel: 0.0 for voxel in region}  # of a region, under its first voxel

    def join(weight: float, a: list, b: list) -> None:
        a.extend(b)
        inner[a[0]] = weight
        for voxel in b:
            region[voxel] = a

    for weight, voxel, other in edges:
        a, b = region[voxel], region[other]
        least = min(inner[a[0]] + scale / len(a), inner[b[0]] + scale / len(b))
        if a is not b and (weight <= least if rule == "adaptive" else weight < bound):
            join(weight, a, b)
    for weight, voxel, other in edges:
        a, b = region[voxel], region[other]
        if a is not b and min(len(a), len(b)) < minimum_size:
            join(weight, a, b)
    numbers: dict[int, int] = {}
    labels = [numbers.setdefault(id(region[voxel]), len(numbers)) for voxel in np.ndindex(smooth.shape)]
    return np.array(labels, np.int32).reshape(smooth.shape)


if __name__ == "__main__":
    main()
