"""One engine for all tasks and users: one network, one memory, no state of any user.

path -> content identity -> prepared volume (kept) -> prompts into its frame -> inferer, whose encodings are kept
-> masks on the stored grid

Weights may change while it runs: a request takes the bundle that counts when it begins, and ends with it.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .bundle import Bundle, first_line
from .clock import Clock
from .identity import Identities
from .in_use import BundleInUse, weights_of
from .memory import Memory
from .segmentation import Segmentation, Start, UserMistake
from .serialised import Serialised
from .weights import WeightsFolder
from .zoom_out import ZoomOut

__all__ = ["Engine", "Segmentation", "UserMistake"]

logger = logging.getLogger(__name__)


class Engine:
    """Segments images by prompts.

    Args:
        bundle: where network and transforms come from.
        memory: shared by all that is kept.
        device: where the network runs.
        own: fine-tuned weights, which count as soon as they are there.
    """

    def __init__(self, bundle: Bundle, memory: Memory, device: str = "cpu", own: WeightsFolder | None = None) -> None:
        self.memory = memory
        self.device = torch.device(device)
        self._start = bundle  # volumes go its way, in and out: what it crops, no other bundle's objects can restore
        self._in_use = BundleInUse(bundle, own, lambda: memory.forget("embedding"))
        self._identities = Identities()
        self._device_lock = threading.Lock()

    @property
    def bundle(self) -> Bundle:
        """The bundle with the weights that count now."""
        return self._in_use.now()

    def weights(self) -> dict[str, str]:
        """Which weights draw the masks: ``name``, ``size`` and ``sha256``; loads them at the first call."""
        return weights_of(self.bundle)

    @property
    def weights_file(self) -> Path:
        """Where the weights lie or are expected; nothing is loaded."""
        return self._in_use.weights_file

    def identity(self, path: Path) -> str:
        """What the content of an image is known by.

        Raises:
            UserMistake: where it cannot be read.
        """
        return _telling(self._identities.of, path)

    def segment(
        self,
        path: Path,
        document: Mapping[str, Any],
        mode: str | None = None,
        refine: Callable[[list[np.ndarray]], Sequence[dict[str, Any]] | None] | None = None,
    ) -> Segmentation:
        """Draw every target of a document.

        Args:
            path: NIfTI, NRRD or a folder with one DICOM series.
            document: the bundle's prompt document.
            mode: of the inferer; None for the bundle's own.
            refine: given the ``model_points`` of every target, the last masks to mend (the inferer's ``refine``), or
                None, as without it, to segment anew.

        Raises:
            UserMistake: one sentence, for an image or a prompt that cannot be used.
        """
        clock, bundle = Clock(), self.bundle
        parsed = _telling(bundle.part("prompt_parser"), dict(document))
        identity = self.identity(path)
        volume = self._volume(path, identity, clock)
        case = _telling(bundle.part("prompts_to_model_frame"), {"image": volume, "document": parsed})
        points = [np.column_stack([prompt.points, prompt.point_labels]) for prompt in case["model_prompts"]]
        report: dict[str, Any] = {"seconds": {}}
        inputs, _, _, kwargs = bundle.part("prepare_batch")({**case, "report": report}, self.device)
        last = None if refine is None else refine(points)
        logits = self._infer(bundle, inputs, mode, {**kwargs, "refine": last}, identity, clock)
        with clock("restore"):
            resolved = bundle.part("resolve_targets")({"pred": logits, "image": volume})
            model_label = _array(resolved["label"])[0]
            label = _stored(self._start, resolved["label"], volume)
        return Segmentation(
            label=label,
            affine=_stored_affine(volume),
            model_label=model_label,
            model_points=points,
            starts=[told["starts"] for told in report["targets"]],
            refined=last is not None,
            messages=[*case["messages"], *_messages(case, report)],
            latencies=clock.told(report["seconds"]),
            weights=weights_of(bundle),
        )

    def restore(self, path: Path, model_label: np.ndarray) -> Segmentation:
        """A label map (D, H, W) of the model's frame, drawn before, on the stored grid again.

        Raises:
            UserMistake: for an image that cannot be used.
        """
        clock = Clock()
        volume = self._volume(path, self.identity(path), clock)
        with clock("restore"):
            like = volume.new_empty((1, *model_label.shape)).copy_(torch.from_numpy(model_label)).to(torch.uint8)
            label = _stored(self._start, like, volume)
        return Segmentation(label, _stored_affine(volume), model_label, [], [], False, [], clock.told({}))

    def zoom_out(self, path: Path) -> ZoomOut:
        """The view of a whole image, prepared and encoded, so that any prompt on it, and the first click, find both.

        Raises:
            UserMistake: for an image that cannot be used.
        """
        identity, bundle = self.identity(path), self.bundle
        volume = self._volume(path, identity, Clock())
        roi_size = bundle.part("inferer").roi_size
        image = torch.as_tensor(volume.as_tensor(), dtype=torch.float32)[None].to(self.device)
        view = torch.nn.functional.interpolate(image, size=roi_size, mode="nearest-exact")
        network = self._network(bundle)
        with torch.no_grad():
            embedding = self._encode(bundle, network, identity, Clock())(view, None)
        return ZoomOut(network, embedding, bundle.part("text_encoder"), identity, weights_of(bundle)["sha256"])

    def _volume(self, path: Path, identity: str, clock: "Clock") -> Any:
        """The prepared volume; nobody may change it."""

        def make() -> Any:
            first, *rest = self._start.part("image_preprocessing").transforms
            with clock("load"):
                data = _telling(first, {"image": str(path)}, path=path)
            if self.identity(path) != identity:
                raise UserMistake(f"image: {path.name} was replaced while it was read; please ask again")
            with clock("preprocess"):
                for step in rest:
                    data = _telling(step, data, path=path)
            return data["image"].clone()  # the crop is a view, which would keep the whole volume

        volume, found = self.memory.get(("volume", identity), make, lambda v: v.numel() * v.element_size())
        clock.found("volume", found)
        return volume

    def _infer(
        self,
        bundle: Bundle,
        inputs: torch.Tensor,
        mode: str | None,
        kwargs: Mapping[str, Any],
        identity: str,
        clock: "Clock",
    ) -> torch.Tensor:
        """Run the inferer; where the device has no room left the memory is emptied once."""
        inferer = bundle.part("inferer") if mode is None else bundle.inferer(mode)
        network = self._network(bundle)
        encode = self._encode(bundle, network, identity, clock)
        call = partial(inferer, inputs=inputs, network=network, encode=encode, **kwargs)
        with suppress(torch.OutOfMemoryError):
            logits: torch.Tensor = call()
            return logits
        # only here, behind the error, nothing holds the tensors of the first try any more
        logger.warning("out of memory on %s: forgetting all that is kept and trying once more", self.device)
        self.memory.clear()
        torch.cuda.empty_cache()
        return call()

    def _encode(
        self, bundle: Bundle, network: Serialised, identity: str, clock: "Clock"
    ) -> Callable[..., torch.Tensor]:
        weights = weights_of(bundle)["sha256"]

        def encode(window: torch.Tensor, start: Start) -> torch.Tensor:
            embedding, found = self.memory.get(
                ("embedding", identity, weights, start),
                lambda: network.encode(window),
                lambda e: e.numel() * e.element_size(),
            )
            clock.found("embedding", found)
            return embedding

        return encode

    def _network(self, bundle: Bundle) -> Serialised:
        bundle.part("weights")
        return Serialised(bundle.part("network"), self._device_lock)


def _stored(bundle: Bundle, label: Any, volume: Any) -> np.ndarray:
    """(1, D, H, W) with the volume's meta data -> (i, j, k)."""
    inverted = bundle.part("to_stored_grid")({"label": label, "image": volume})
    return _array(inverted["label"])[0]


def _telling(call: Callable[..., Any], *args: Any, path: Path | None = None) -> Any:
    """Call a part of the bundle; what a user can mend comes as ``UserMistake``, without the folder of ``path``."""
    try:
        return call(*args)
    except (ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not isinstance(error.__cause__, ValueError):
            raise
        sentence = first_line(error)
        raise UserMistake(sentence if path is None else sentence.replace(str(path), path.name)) from error


def _messages(case: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    rows = zip(case["prompts"], report["targets"], strict=True)
    return [f"{prompt.name}: {told['message']}" for prompt, told in rows if told["message"]]


def _stored_affine(volume: Any) -> np.ndarray:
    return np.asarray(volume.meta["original_affine"], dtype=float)


def _array(tensor: Any) -> np.ndarray:
    plain = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    array: np.ndarray = plain.cpu().numpy()
    return array
