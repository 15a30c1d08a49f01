"""Small attachments of the trainer that MONAI and ignite do not bring."""

from collections.abc import Iterable

from ignite.engine import Engine
from monai.engines import IterationEvents
from torch import nn


class ClipGradients:
    """Keep the norm of all gradients within ``max_norm`` before each step."""

    def __init__(self, parameters: Iterable[nn.Parameter], max_norm: float) -> None:
        self.parameters = list(parameters)
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Clip once the gradients are there."""
        engine.add_event_handler(
            IterationEvents.BACKWARD_COMPLETED, lambda _: nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        )
