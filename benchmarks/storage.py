"""What it costs to keep prepared cases on disk and to draw views from them, by storage choice.

    python benchmarks/storage.py [--image ct.nii.gz] [--shape 300 512 512] [--repeats 8] [--folder out/storage]
        [--sizes base small] [--loader_views 24] [--batch_size 4]

A case of the given shape is made of a CT, prepared as for training and mirrored at its borders until it fills the
shape, so that its noise stays that of a CT; of a generated trunk where no image is given. Its label is a generated
trunk's, its pseudo masks are its own. The first tables, one for each size of network, write its three grids in every
way and read views of the four kinds that training draws. Rates from the page cache are views per second of one core, by
the time of the processor; cold ones are by the clock, with the files dropped from the page cache before each view (mix
of kinds as in training). The ways take turns; medians. The last tables draw whole training views, prompts included,
from a DataLoader, by the clock: what else runs on the machine counts.
"""

import argparse
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bundle"))

from scripts.data.storage.store import open_case, write_case  # noqa: E402
from scripts.phantom import make_phantom  # noqa: E402
from scripts.training.datasets import PromptedViews, collate_views  # noqa: E402
from scripts.training.prepared import PreparedCase  # noqa: E402
from scripts.training.pseudo_masks import pseudo_mask  # noqa: E402
from scripts.training.views import View, draw_view  # noqa: E402
from scripts.transforms import load_volume, normalise_foreground  # noqa: E402
from storage_choices import CHOICES, NUMPY, STORE, TORCH, Choice  # noqa: E402

KINDS: dict[str, dict[str, float]] = {
    "whole volume": {"whole": 1, "window": 0},
    "window": {"whole": 0, "window": 1},
    "any size": {"whole": 0, "window": 0},
    "fitted": {"whole": 0, "window": 0, "fit": 1},
}
MIX = {"whole": 0.4, "window": 0.4}
WINDOWS = {"base": (32, 256, 256), "small": (32, 64, 64)}
Grids = dict[str, Any]


def main() -> None:
    """Write, read, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512))
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("out/storage"))
    parser.add_argument("--sizes", nargs="+", choices=WINDOWS, default=list(WINDOWS))
    parser.add_argument("--loader_views", type=int, default=24)
    parser.add_argument("--batch_size", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arrays, names = make_case(arguments.image, arguments.shape)
    stored = stored_case(arguments.folder, arrays, names)
    ways = {choice: written(choice, arguments.folder, arrays) for choice in CHOICES}
    sys.stdout.write(
        f"{' x '.join(map(str, arguments.shape))}, {100 * np.mean(arrays['image'] == 0):.0f} % of it air\n"
    )
    for size in arguments.sizes:
        print_reads(size, ways, stored, arguments.repeats)
    for size in arguments.sizes:
        print_loader(size, ways, arrays, stored, arguments.loader_views, arguments.batch_size)


# ---------------------------------------------------------------- the case


def make_case(path: Path | None, shape: Sequence[int]) -> tuple[dict[str, NDArray], dict[int, str]]:
    """Image, label and pseudo masks of ``shape``, and the names of the label."""
    trunk = make_phantom(3000, (shape[2] // 2, shape[1] // 2, shape[0] // 2))
    image = np.ascontiguousarray((trunk.image if path is None else _oriented(path)).T, np.float32)
    image = normalise_foreground(torch.from_numpy(image)).numpy()
    box = np.argwhere(image).min(axis=0), np.argwhere(image).max(axis=0) + 1
    image = filled(image[tuple(slice(a, b) for a, b in zip(*box, strict=True))], shape)
    label = filled(trunk.label.T.repeat(2, 0).repeat(2, 1).repeat(2, 2).astype(np.uint8), shape)
    regions = pseudo_mask(image, label).astype(np.int16)
    return {"image": image.astype(np.float16), "label": label, "pseudo_mask": regions}, trunk.names


def _oriented(path: Path) -> NDArray:
    """(i, j, k) of a file; how it lies does not matter here, as long as k goes through the slices."""
    return load_volume(path)[0].numpy()


def filled(volume: NDArray, shape: Sequence[int]) -> NDArray:
    """A volume mirrored at its borders as often as needed, and cut."""
    missing = [(0, max(0, wanted - there)) for wanted, there in zip(shape, volume.shape, strict=True)]
    return np.ascontiguousarray(np.pad(volume, missing, mode="symmetric")[tuple(slice(n) for n in shape)])


def stored_case(folder: Path, arrays: dict[str, NDArray], names: dict[int, str]) -> PreparedCase:
    """The case in the store, as training opens it."""
    write_case(folder / "case", arrays, {"axcodes": "SAR"})
    entry = {"label": "", "labels": {str(value): name for value, name in names.items()}}
    return PreparedCase.of_store(entry, open_case(folder / "case"))


# ---------------------------------------------------------------- every way of keeping it


def written(choice: Choice, folder: Path, arrays: dict[str, NDArray]) -> dict[str, Any]:
    """Write all grids in one way: the grids, their bytes on disk, and seconds of the processor."""
    where = folder / f"choice_{CHOICES.index(choice)}"
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    begin = time.process_time()
    for name, array in arrays.items():
        choice.write(where / f"{name}{choice.suffix}", array)
    seconds = time.process_time() - begin
    files = [path for path in where.rglob("*") if path.is_file()]
    grids = {n: choice.grid(str(where / f"{n}{choice.suffix}"), a.shape, str(a.dtype)) for n, a in arrays.items()}
    return {"grids": grids, "files": files, "bytes": sum(path.stat().st_size for path in files), "seconds": seconds}


def print_reads(size: str, ways: dict[Choice, dict[str, Any]], case: PreparedCase, repeats: int) -> None:
    """A row for each way: views/s of each kind from the page cache, and of the mix without it."""
    kinds = {**KINDS, "cold": MIX}
    seconds: dict[Choice, dict[str, list[float]]] = {choice: {kind: [] for kind in kinds} for choice in ways}
    for repeat in range(repeats):
        for kind, shares in kinds.items():
            view = draw(case, WINDOWS[size], np.random.default_rng((repeat, len(kind))), shares)
            for choice, way in ways.items():
                if choice.whole and repeat > 1:
                    continue  # the same whatever the view shows
                seconds[choice][kind].append(read(view, way, kind == "cold"))
    sys.stdout.write(f"\n{size}: window of {' x '.join(map(str, WINDOWS[size]))}\n\n")
    head = ["storage", "MB", "written in, s", *(f"{kind}, views/s" for kind in KINDS), "cold, views/s"]
    sys.stdout.write(f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n")
    for choice, way in ways.items():
        rates = [f"{1 / statistics.median(seconds[choice][kind]):.3g}" for kind in kinds]
        row = [choice.name, f"{way['bytes'] / 1e6:.0f}", f"{way['seconds']:.1f}", *rates]
        sys.stdout.write(f"| {' | '.join(row)} |\n")
    sys.stdout.flush()


def draw(case: PreparedCase, window: Sequence[int], rng: np.random.Generator, shares: dict[str, float]) -> View:
    """A view as training draws it."""
    return draw_view(case.image.shape, window, case.centre(rng), rng, extent=case.extent(rng), **shares)


def read(view: View, way: dict[str, Any], cold: bool) -> float:
    """Seconds that a view of all grids takes: of the processor, or by the clock where the files are not in memory."""
    if cold:
        for path in way["files"]:
            forget(path)
    clock = time.perf_counter if cold else time.process_time
    begin = clock()
    for grid in way["grids"].values():
        view.of(grid)
    return clock() - begin


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


# ---------------------------------------------------------------- a DataLoader


def print_loader(
    size: str,
    ways: dict[Choice, dict[str, Any]],
    arrays: dict[str, NDArray],
    stored: PreparedCase,
    views: int,
    batch_size: int,
) -> None:
    """A row for each of some ways: whole training views per second, prompts included."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    grids = {"in memory": tensors, **{c.name: ways[c]["grids"] for c in (TORCH, NUMPY, STORE)}}
    workers = (0, 1, 2)
    sys.stdout.write(f"\n{size}: training views/s of a DataLoader, by the clock\n\n")
    head = ["storage", "of one core, by the processor", *(f"{count} workers" for count in workers)]
    sys.stdout.write(f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n")
    for name, each in grids.items():
        data = PromptedViews([replace(stored, **each)], WINDOWS[size], 10**6, pseudo_masks=6, flip=0.2)
        alone = timed(lambda data=data: [data[i] for i in range(views // 2)], time.process_time)
        rates = [views / 2 / alone, *(loader_rate(data, count, views, batch_size) for count in workers)]
        sys.stdout.write(f"| {' | '.join([name, *(f'{rate:.3g}' for rate in rates)])} |\n")
        sys.stdout.flush()


def loader_rate(data: PromptedViews, workers: int, views: int, batch_size: int) -> float:
    """Views/s once every worker has delivered a batch."""
    first = max(1, workers)
    part = torch.utils.data.Subset(data, range(views + first * batch_size))
    batches = iter(DataLoader(part, batch_size, num_workers=workers, collate_fn=collate_views))
    for _ in range(first):
        next(batches)
    return views / timed(lambda: list(batches), time.perf_counter)


def timed(job: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Seconds that a job takes by a clock."""
    begin = clock()
    job()
    return clock() - begin


if __name__ == "__main__":
    main()
