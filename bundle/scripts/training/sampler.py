"""Which views of an epoch a process trains on, and which of them are still to come."""

from collections.abc import Iterator

import ignite.distributed as idist
from ignite.engine import Events
from monai.engines import Workflow
from torch.utils.data import Sampler

from ..arguments import exit_on_error


class ViewSampler(Sampler[int]):
    """Indices of views that are drawn from (seed, epoch, index): each process gets its share, as many as the others.

    An optimizer step takes neighbouring indices, shared out in blocks. So two processes with batches of 4, one with a
    batch of 8, and one that accumulates 8 over batches of 2 train a step on the same views. What is left over at the
    end of an epoch is left out. A run that goes on in the middle of an epoch starts at the next view that it has not
    seen (ignite counts the iterations, but does not skip the data).

    Args:
        length: views per epoch, of all processes together.
        batch_size: views per iteration of one process. The default shares out single views, for validation.
        accumulate: iterations per optimizer step.
        rank: number of this process; by default torch.distributed's.
        world_size: number of processes; by default torch.distributed's.

    Raises:
        SystemExit: one line, where there are fewer views than one step takes.
    """

    def __init__(
        self,
        length: int,
        batch_size: int = 1,
        accumulate: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.rank = idist.get_rank() if rank is None else rank
        self.world_size = idist.get_world_size() if world_size is None else world_size
        self.batch_size = batch_size
        self.start = 0
        with exit_on_error():
            for name, value in (("batch_size", batch_size), ("accumulate", accumulate)):
                if not isinstance(value, int) or value < 1:
                    raise ValueError(f"{name} is {value!r}; it takes a whole number from 1")
            self.block = batch_size * accumulate
            self.steps = int(length) // (self.block * self.world_size)
            if not self.steps:
                raise ValueError(
                    f"{length} views are too few: a step takes batch_size {batch_size} x accumulate {accumulate} x "
                    f"{self.world_size} process(es); raise views_per_epoch, or validation_views"
                )

    def attach(self, engine: Workflow) -> None:
        """As a handler of the trainer: skip what it has seen of the epoch that it goes on with."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._skip_seen)

    def __len__(self) -> int:
        """Views of this process in a whole epoch."""
        return self.steps * self.block

    def __iter__(self) -> Iterator[int]:
        """Indices of the epoch's views for this process, those alone that it has not seen."""
        for i in range(self.start, len(self)):
            step, place = divmod(i, self.block)
            yield (step * self.world_size + self.rank) * self.block + place

    def _skip_seen(self, engine: Workflow) -> None:
        self.start = engine.state.iteration % engine.state.epoch_length * self.batch_size
