"""The state of a training run on disk: kept as it goes on, at a signal too, and read to go on from.

ignite's ``Checkpoint`` removes an old state before the new one is there, and forgets over a restart which files are its
own; so only its loading is used. In a run of many processes the first one writes, and ``output_dir`` is one folder for
all of them.
"""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events
from ignite.handlers import Checkpoint
from monai.engines import Workflow

from ..arguments import as_path, exit_on_error
from .state_files import newest_state, prune_states, read_state, states_in, sweep, write_whole

logger = logging.getLogger(__name__)

LATEST = "latest"
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StateSaver:
    """Runs a trainer and keeps its state on disk, so that ``load_state`` goes on to the same numbers.

    ``checkpoint_epoch=N.pt`` is written every ``interval`` epochs and at the end. SIGTERM and SIGINT let the running
    optimizer step finish, or the running batch of a validation, and write ``checkpoint_iteration=K.pt``; where only the
    last epoch's validation is left to do, that is done first.

    Args:
        output_dir: where the states go.
        save_dict: name -> what has a ``state_dict``; an ``EarlyStop`` is named ``early_stop``.
        trainer: the engine to run.
        evaluator: the engine that validates within it.
        interval: epochs between two states.
        n_saved: how many states stay. An older one goes once the new one is there; so does what lies ahead of the new
            one, which an earlier run left.

    Raises:
        SystemExit: one line, for an ``interval`` (``save_every``) or ``n_saved`` (``states_kept``) below 1.
    """

    def __init__(
        self,
        output_dir: str | Path,
        save_dict: Mapping[str, Any],
        trainer: Workflow,
        evaluator: Workflow | None = None,
        interval: int = 1,
        n_saved: int = 1,
    ) -> None:
        with exit_on_error():
            for key, value in (("save_every", interval), ("states_kept", n_saved)):
                if not isinstance(value, int) or value < 1:
                    raise ValueError(f"{key} is {value!r}; it takes a whole number from 1")
        self.folder = Path(output_dir)
        self.save_dict = save_dict
        self.trainer = trainer
        self.evaluator = evaluator
        self.n_saved = n_saved
        self._asked = 0  # a signal that has come to this process
        self._stopped = 0  # the signal that has ended the run, the same in every process
        self._saved = -1
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)
        trainer.add_event_handler(Events.EPOCH_COMPLETED(every=interval), self._after_epoch)
        trainer.add_event_handler(Events.COMPLETED, self._at_end)
        if evaluator is not None:
            evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._after_validated_batch)

    def run(self) -> None:
        """Train to the end, or to a signal; where the loaded state is the end, say so."""
        if self._is_done():
            logger.info("the training is done, after epoch %d; nothing is left to do", self.trainer.state.epoch)
            return
        if idist.get_rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep(self.folder)
        with self._listening():
            self.trainer.run()

    def leave(self) -> None:
        """The last step of a run: tell the caller that a signal has ended it.

        Raises:
            SystemExit: 143 after SIGTERM, 130 after SIGINT.
        """
        if self._stopped:
            raise SystemExit(128 + self._stopped)

    def _is_done(self) -> bool:
        return self._in_last_step() or getattr(self.save_dict.get("early_stop"), "exhausted", False)

    def _in_last_step(self) -> bool:
        state = self.trainer.state
        return state.iteration >= state.max_epochs * state.epoch_length

    def _after_iteration(self, trainer: Workflow) -> None:
        between_steps = trainer.state.iteration % getattr(trainer, "accumulation_steps", 1) == 0
        if between_steps and not self._in_last_step() and self._is_asked():
            self._stop()

    def _after_validated_batch(self, evaluator: Workflow) -> None:
        if not self._in_last_step() and self._is_asked():
            evaluator.terminate(skip_completed=True)
            self._stop()

    def _after_epoch(self, trainer: Workflow) -> None:
        if not self._stopped:
            self._save(f"checkpoint_epoch={trainer.state.epoch}.pt")

    def _at_end(self, trainer: Workflow) -> None:
        if self._saved != trainer.state.iteration:
            self._save(f"checkpoint_epoch={trainer.state.epoch}.pt")

    def _is_asked(self) -> bool:
        """Whether a signal has come to any process: all must stop after the same step."""
        self._asked = int(idist.all_reduce(self._asked, op="MAX"))
        return bool(self._asked)

    def _stop(self) -> None:
        state = self.trainer.state
        within = state.iteration % state.epoch_length != 0
        path = self._save(f"checkpoint_iteration={state.iteration}.pt", epoch_completed=within)
        self._stopped = self._asked
        name = signal.Signals(self._stopped).name
        if idist.get_rank() == 0:
            logger.warning("%s: the state is in %s; --resume %s goes on from it", name, path, LATEST)
        self.trainer.terminate(skip_completed=True)

    def _save(self, name: str, epoch_completed: bool = True) -> Path:
        """Write the state; without ``epoch_completed`` the handlers of an epoch's end have still to run."""
        path = self.folder / name
        self._saved = self.trainer.state.iteration
        if idist.get_rank() == 0:
            content = {key: part.state_dict() for key, part in self.save_dict.items()}
            write_whole({**content, "epoch_completed": epoch_completed}, path)
            prune_states(path, self.n_saved, self.trainer.state.epoch_length)
        idist.barrier()  # no process leaves, and ends the others, while the first one writes
        return path

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Signals are noted instead of obeyed; those that the caller ignores stay ignored."""
        former: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            former = {s: signal.getsignal(s) for s in SIGNALS if signal.getsignal(s) != signal.SIG_IGN}
        for number in former:
            signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _note(self, number: int, _: Any) -> None:
        self._asked = self._asked or number


class RunSettings:
    """Settings that a resumed run must share with the one that it goes on from.

    Args:
        settings: name -> value.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)

    def state_dict(self) -> dict[str, Any]:
        """The settings."""
        return self.settings

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare.

        Raises:
            ValueError: naming each setting that differs.
        """
        changed = {key: value for key, value in self.settings.items() if state.get(key) != value}
        if changed:
            raise ValueError(", ".join(f"{key} was {state.get(key)!r} and is {new!r}" for key, new in changed.items()))


class BestSaver:
    """Handler of a validating engine: the weights that score best so far, whole or not at all.

    What scores better is the engine's own comparison (``metric_cmp_fn``). Saved with a run's state, a resumed run knows
    what it has to beat.

    Args:
        output_dir: where the file goes.
        save_dict: name -> what has a ``state_dict``.
        filename: of the weights.
    """

    def __init__(self, output_dir: str | Path, save_dict: Mapping[str, Any], filename: str = "model.pt") -> None:
        self.path = Path(output_dir) / filename
        self.save_dict = save_dict
        self.engine: Workflow | None = None

    def attach(self, engine: Workflow) -> None:
        """Look at the key metric after every validation."""
        self.engine = engine
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._keep)

    def state_dict(self) -> dict[str, Any]:
        """The best key metric and its epoch."""
        assert self.engine is not None
        return {key: getattr(self.engine.state, key) for key in ("best_metric", "best_metric_epoch")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what is to beat, as long as those weights are there: another folder starts without."""
        assert self.engine is not None
        if self.path.is_file():
            self.engine.state.best_metric = state["best_metric"]
            self.engine.state.best_metric_epoch = state["best_metric_epoch"]

    def _keep(self, engine: Workflow) -> None:
        if engine.state.best_metric_epoch == engine.state.epoch and idist.get_rank() == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole({key: part.state_dict() for key, part in self.save_dict.items()}, self.path)


def load_state(resume: Any, output_dir: str | Path, load_dict: Mapping[str, Any]) -> Path | None:
    """Go on from a state as a step of a config.

    Args:
        resume: a file of ``StateSaver``; ``latest`` for the newest whole one in ``output_dir``, where there is one;
            None to start anew.
        output_dir: folder of the states.
        load_dict: name -> what takes a ``load_state_dict``, the engine among them as ``trainer``.

    Returns:
        The file that was loaded.

    Raises:
        SystemExit: one line, for a file that cannot be read, or is of another network or of other settings.
    """
    trainer = load_dict["trainer"]
    states = states_in(Path(output_dir), trainer.state.epoch_length)
    with exit_on_error():
        if resume is None:
            if states:
                logger.warning(
                    "%s has states of an earlier run, which this one's replace: %s", output_dir, states[0].name
                )
            return None
        if str(resume) != LATEST:
            path = as_path(resume, "resume") or Path()
            content = read_state(path)
        elif states:
            path, content = newest_state(states)
        else:
            logger.warning("resume: %s holds no state; the training starts anew", output_dir)
            return None
        _load(content, path, load_dict)
    logger.info("going on from %s, after %d iterations", path, trainer.state.iteration)
    return path


def _load(content: Mapping[str, Any], path: Path, load_dict: Mapping[str, Any]) -> None:
    if missing := [key for key in load_dict if not isinstance(content.get(key), Mapping)]:
        raise ValueError(
            f"resume: {path} is no state of this training, it has no {', '.join(missing)}; --checkpoint takes weights"
        )
    trainer = load_dict["trainer"]
    _check_length(content["trainer"], trainer, path)
    try:
        Checkpoint.load_objects(load_dict, content)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"resume: {path} is of another --size, or of other settings: {reason}") from error
    if not content.get("epoch_completed", True):
        trainer.add_event_handler(Events.STARTED, lambda engine: engine.fire_event(Events.EPOCH_COMPLETED))


def _check_length(saved: Mapping[str, Any], trainer: Workflow, path: Path) -> None:
    """The learning rate follows the number of steps, and the views follow the epochs: neither may change."""
    there = (saved.get("max_epochs"), saved.get("epoch_length"))
    here = (trainer.state.max_epochs, trainer.state.epoch_length)
    if there != here:
        raise ValueError(
            f"resume: {path} is of a run of {there[0]} epochs of {there[1]} iterations, this is one of {here[0]} of "
            f"{here[1]}; keep epochs, views_per_epoch, accumulate, and batch_size x processes, or start from its "
            "weights with --checkpoint"
        )
