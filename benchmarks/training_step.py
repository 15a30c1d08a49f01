"""What a training step costs: cases per second, peak memory, and where the time goes.

    python benchmarks/training_step.py small|base [--batch_size 2] [--threads 2] [--steps 5] [--device cpu]
        [--bfloat16] [--checkpoint_activations] [--combinations_per_step 6] [--pseudo_masks 6]

Algorithm 1 on phantoms: one encoding, the prompt combinations on true masks, the pseudo masks, one optimizer step. The
median of the steps after the first is printed as a row of a Markdown table. Memory is the peak of the process (on a GPU
that of its allocator), weights and optimizer included.
"""

import argparse
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from monai.utils import set_determinism

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bundle"))

from scripts.network import SegVol, build_segvol  # noqa: E402
from scripts.phantom import make_phantom  # noqa: E402
from scripts.training.activations import checkpoint_blocks  # noqa: E402
from scripts.training.datasets import PromptedViews, collate_views  # noqa: E402
from scripts.training.forward import COMBINATIONS, EncodeOnceDecodeMany, PrepareBatch  # noqa: E402
from scripts.training.losses import PromptLoss  # noqa: E402
from scripts.training.prepared import PreparedCase  # noqa: E402
from scripts.training.pseudo_masks import pseudo_mask  # noqa: E402

PARTS = ("data", "encode", "decode", "loss", "backward", "optimizer")


class Names:
    """A vector for any name: what the text costs is paid once per name, before training."""

    def __init__(self, text_dim: int) -> None:
        self.text_dim = text_dim

    def resolve(self, text: str) -> str:
        """Every text is a name."""
        return text

    def __call__(self, names: list[str]) -> torch.Tensor:
        """(N, text_dim) of unit length."""
        return torch.full((len(names), self.text_dim), self.text_dim**-0.5)


class Clock:
    """Seconds by part of a step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what runs inside, on the device too."""
        begin = self._now()
        yield
        self.seconds[name] += self._now() - begin

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Timed(torch.nn.Module):
    """A network whose encoding and decoding are timed."""

    def __init__(self, network: SegVol, clock: Clock) -> None:
        super().__init__()
        self.network, self.clock, self.image_encoder = network, clock, network.image_encoder

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """See ``SegVol.encode``."""
        with self.clock.part("encode"):
            return self.network.encode(image)

    def decode(self, embedding: torch.Tensor, **prompts: torch.Tensor) -> torch.Tensor:
        """See ``SegVol.decode``."""
        with self.clock.part("decode"):
            return self.network.decode(embedding, **prompts)


def main() -> None:
    """Time the steps and print the row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=("small", "base"))
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--checkpoint_activations", action="store_true")
    parser.add_argument("--combinations_per_step", type=int, default=6)
    parser.add_argument("--pseudo_masks", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    set_determinism(0)
    steps = [step for number, step in enumerate(run(arguments)) if number]
    median = {part: statistics.median(step[part] for step in steps) for part in PARTS}
    total = sum(median.values())
    shares = ", ".join(f"{part} {100 * median[part] / total:.0f} %" for part in PARTS)
    options = [
        f"batch {arguments.batch_size}",
        *(n for n in ("bfloat16", "checkpoint_activations") if vars(arguments)[n]),
    ]
    sys.stdout.write(
        f"| {arguments.size} ({', '.join(options)}) | {total:.2f} | {arguments.batch_size / total:.2f} "
        f"| {peak_mebibytes(arguments.device)} | {shares} |\n"
    )


def run(arguments: argparse.Namespace) -> Iterator[dict[str, float]]:
    """Seconds of each part, step by step."""
    device = torch.device(arguments.device)
    clock = Clock(device)
    network = build_segvol(arguments.size, text_encoder=False).to(device)
    if arguments.checkpoint_activations:
        checkpoint_blocks(network.image_encoder)
    model = EncodeOnceDecodeMany(Timed(network, clock), arguments.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    data = PromptedViews([case()], network.window_size, 10**6, targets=1, pseudo_masks=arguments.pseudo_masks)
    prepare = PrepareBatch(Names(network.text_dim), network.text_dim, COMBINATIONS, arguments.combinations_per_step)
    loss_function = PromptLoss()
    for step in range(arguments.steps + 1):
        clock.seconds.clear()
        with clock.part("data"):
            first = step * arguments.batch_size
            batch = collate_views([data[first + i] for i in range(arguments.batch_size)])
            image, target, _, kwargs = prepare(batch, device)
        output = model(image, **kwargs)
        with clock.part("loss"):
            loss = loss_function(output, target)
        with clock.part("backward"):
            loss.backward()
        with clock.part("optimizer"):
            optimizer.step()
            optimizer.zero_grad()
        yield dict(clock.seconds)


def case() -> PreparedCase:
    """A phantom with its pseudo masks, as the preprocessing would hand it over."""
    phantom = make_phantom(0)
    image = torch.from_numpy(phantom.image.astype("float32")).permute(2, 1, 0).clamp(-200, 300)
    image = (image - image.min()) / (image.max() - image.min())
    label = torch.from_numpy(phantom.label.astype("int16")).permute(2, 1, 0)
    regions = torch.from_numpy(pseudo_mask(image.numpy(), label.numpy()))
    volumes = {"image": image.half(), "label": label, "pseudo_mask": regions}
    return PreparedCase.of_tensors({"labels": phantom.names} | {key: volume[None] for key, volume in volumes.items()})


def peak_mebibytes(device: str) -> str:
    """The most memory that was in use, in MiB."""
    if device.startswith("cuda"):
        return f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f}"


if __name__ == "__main__":
    main()
