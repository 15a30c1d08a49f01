"""``python -m scripts.phantom OUT --seed 7 --count 3``: write phantoms, or volumes of random shapes."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from .files import add_to_datalist, save_phantom, write_prompts
from .random_shapes import make_random_shapes
from .scan import make_phantom

KINDS = {"anatomy": ("phantom", make_phantom), "shapes": ("shapes", make_random_shapes)}  # folder's name, maker
logger = logging.getLogger("scripts.phantom")


def main() -> None:
    """Write phantoms from the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.phantom", description="Generate labelled CTs.")
    parser.add_argument("out", type=Path, help="folder for phantom_0007/ct.nii.gz and so on")
    parser.add_argument("--kind", choices=sorted(KINDS), default="anatomy", help="patients, or shapes without a name")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first phantom")
    parser.add_argument("--count", type=int, default=1, help="how many, with the seeds that follow")
    parser.add_argument("--split", default="train", help="split under which OUT/datalist.json lists them")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.seed < 0 or arguments.count < 1:
        parser.error("--seed must be 0 or more and --count 1 or more.")
    folders: list[Path] = []
    prefix, make = KINDS[arguments.kind]
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        phantom = make(seed)
        image, _ = save_phantom(phantom, arguments.out / f"{prefix}_{seed:04d}")
        write_prompts(phantom, image.parent / "prompts.json", seed)
        folders.append(image.parent)
        logger.info(image)
    add_to_datalist(arguments.out, folders, arguments.split)


if __name__ == "__main__":
    main()
