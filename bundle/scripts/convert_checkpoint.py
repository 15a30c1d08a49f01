"""``python -m scripts.convert_checkpoint SRC DST``: save any loadable SegVol file as a file of this project."""

import logging
import sys
from pathlib import Path

import fire

from .checkpoints import load_checkpoint, save_checkpoint
from .network import Size, build_segvol

logger = logging.getLogger(__name__)


def convert(src: str, dst: str, size: Size = "base") -> None:
    """Load ``src`` strictly and write it to ``dst``.

    Args:
        src: any of the published files, or a file of this project.
        dst: where to write; its folder is made.
        size: the network that the file holds.
    """
    network = build_segvol(size)
    info = load_checkpoint(network, Path(str(src)))
    save_checkpoint(network, Path(str(dst)), info.text_names)
    logger.info("saved %s (%d tensors, source sha256 %s)", dst, len(network.state_dict()), info.sha256)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        fire.Fire(convert)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
