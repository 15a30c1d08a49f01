"""One network for many threads."""

import threading
from typing import Any

import torch


class Serialised:
    """A network that one thread at a time uses; between two views another user may come in."""

    def __init__(self, network: Any, lock: threading.Lock) -> None:
        self._network = network
        self._lock = lock

    def encode(self, window: torch.Tensor) -> torch.Tensor:
        """Embedding of a view."""
        with self._lock:
            embedding: torch.Tensor = self._network.encode(window)
            return embedding

    def decode(self, embedding: torch.Tensor, **prompts: Any) -> torch.Tensor:
        """Logits of a view for a prompt."""
        with self._lock:
            logits: torch.Tensor = self._network.decode(embedding, **prompts)
            return logits
