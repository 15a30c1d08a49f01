"""An encoded view of a whole image, which any number of prompts can be decoded on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class ZoomOut:
    """One embedding and what decodes it.

    Args:
        network: ``decode(embedding, points, point_labels, boxes, text)``.
        embedding: (1, C, d, h, w) of the view.
        text_encoder: resolved names -> vectors.
        identity: what the image's content is known by.
        weights: SHA-256 of the weights that encoded it.
    """

    def __init__(self, network: Any, embedding: torch.Tensor, text_encoder: Any, identity: str, weights: str) -> None:
        self._network = network
        self._embedding = embedding
        self._text_encoder = text_encoder
        self.identity = identity
        self.weights = weights

    def by_name(self, name: str) -> NDArray[np.bool_]:
        """(d, h, w) mask of a structure, asked for by a name that the weights know."""
        return self._decode(text=self._text_encoder([name]))

    def by_click(self, point: Sequence[float]) -> NDArray[np.bool_]:
        """(d, h, w) mask for one positive click (3,) in voxels of the view."""
        points = self._tensor(point).reshape(1, 1, 3)
        return self._decode(points=points, point_labels=torch.ones_like(points[..., 0]))

    def by_box(self, box: NDArray[Any]) -> NDArray[np.bool_]:
        """(d, h, w) mask for a box (2, 3) in voxels of the view, its upper corner included."""
        return self._decode(boxes=self._tensor(box).reshape(1, 6))

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=self._embedding.device)

    def _decode(self, **prompt: torch.Tensor) -> NDArray[np.bool_]:
        moved = {name: tensor.to(self._embedding.device) for name, tensor in prompt.items()}
        with torch.no_grad():
            logits = self._network.decode(self._embedding, **moved)
        mask: NDArray[np.bool_] = (logits[0, 0] > 0).cpu().numpy()
        return mask
