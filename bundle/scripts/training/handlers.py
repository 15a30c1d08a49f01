"""Small attachments of the engines that MONAI and ignite do not bring."""

import logging
import sys
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from monai.engines import IterationEvents
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..arguments import exit_on_error

logger = logging.getLogger(__name__)


class ClipGradients:
    """Keep the norm of all gradients of ``optimizer`` within ``max_norm``, once before each of its steps."""

    def __init__(self, optimizer: Optimizer, max_norm: float) -> None:
        self.optimizer = optimizer
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """As a handler: from now on; gradients that are still accumulating are left alone."""
        self.optimizer.register_step_pre_hook(self._clip)

    def _clip(self, *_: Any) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.max_norm)


class ScheduleSteps:
    """Move the learning rate on once after each optimizer step; MONAI's handler counts the iterations instead."""

    def __init__(self, lr_scheduler: LRScheduler) -> None:
        self.lr_scheduler = lr_scheduler

    def attach(self, engine: Engine) -> None:
        """As a handler: from now on."""
        self.lr_scheduler.optimizer.register_step_post_hook(self._step)

    def _step(self, *_: Any) -> None:
        self.lr_scheduler.step()


class ListOutput:
    """Hand the output of an iteration on as a list of one, as if decollated, which ``--tracking mlflow`` relies on.

    MONAI's own ``decollate`` would cut every tensor into the items of a batch, of which prompts are a multiple.
    """

    def attach(self, engine: Engine) -> None:
        """As a handler: once the step is done."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._wrap)

    def _wrap(self, engine: Engine) -> None:
        engine.state.output = [engine.state.output]  # type: ignore[assignment]


class EarlyStop(EarlyStopping):
    """End the training where validation no longer finds a better key metric, whichever way that counts.

    MONAI's EarlyStopHandler is the same around ignite's, but cannot be saved and go on counting after a resume.

    Args:
        validations: so many without gain in a row end it; 0 never does.
        trainer: what is ended.

    Raises:
        SystemExit: one line, for a negative number.
    """

    def __init__(self, validations: int, trainer: Engine) -> None:
        with exit_on_error():
            if not isinstance(validations, int) or validations < 0:
                raise ValueError(f"early_stop is {validations!r}; it takes a number of validations, 0 for never")
        super().__init__(validations or sys.maxsize, lambda engine: engine.state.best_metric_epoch, trainer)

    @property
    def exhausted(self) -> bool:
        """Whether it has ended the training."""
        return self.counter >= self.patience

    def attach(self, engine: Engine, *_: Any, **__: Any) -> None:
        """Count the runs of a validating engine."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare, and end the training where patience is over."""
        super().__call__(engine)
        if self.exhausted:
            logger.info("early_stop: %d validations without a gain", self.patience)
