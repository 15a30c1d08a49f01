"""One process of several that train together, as torchrun starts them."""

import logging
import os
from typing import Any

import torch
from torch import distributed

from ..arguments import exit_on_error


def join(device: Any) -> None:
    """Meet the other processes, by NCCL where each has a GPU, by gloo on the CPU; the first one alone speaks.

    Args:
        device: of this process.

    Raises:
        SystemExit: one line, where torchrun did not start this process.
    """
    with exit_on_error():
        if "RANK" not in os.environ:
            raise ValueError(
                "multi_gpu_train.json: start it with torchrun, as in torchrun --nproc_per_node=2 -m monai.bundle run"
            )
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if distributed.get_rank():
        logging.getLogger(__name__.partition(".")[0]).setLevel(logging.ERROR)
