"""The bundle that requests run with: fine-tuned weights take over between two requests, never within one."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from .bundle import Bundle, NotReady
from .weights import Stamp, WeightsFolder

logger = logging.getLogger(__name__)


class BundleInUse:
    """Looks at the folder of fine-tuned weights at every request, which costs one look at a file's times.

    Args:
        start: the bundle with the weights that the settings name.
        own: fine-tuned weights, None for a server that has none.
        changed: called once other weights are loaded.
    """

    def __init__(self, start: Bundle, own: WeightsFolder | None, changed: Callable[[], None]) -> None:
        self._start = self._bundle = start
        self._own = own
        self._changed = changed
        self._stamp: Stamp | None = None
        self._swap = threading.Lock()

    def now(self) -> Bundle:
        """The bundle with the weights that count; whoever asks first after a change loads them, the others wait."""
        if self._own is None or self._own.stamp() == self._stamp:
            return self._bundle
        with self._swap:
            stamp = self._own.stamp()
            if stamp != self._stamp:
                self._bundle, self._stamp = newest(self._start, self._own, self._bundle), stamp
                self._changed()
        return self._bundle

    @property
    def weights_file(self) -> Path:
        """Where the weights lie or are expected; nothing is loaded."""
        own = None if self._own is None else self._own.current()
        return self._start.weights_file if own is None else own.path


def newest(start: Bundle, own: WeightsFolder, before: Bundle | None = None) -> Bundle:
    """The bundle with the fine-tuned weights that count, loaded, or ``start`` where there are none.

    Args:
        start: the bundle with the weights that the settings name.
        own: fine-tuned weights.
        before: what to stay with where they do not fit; by default ``start``.
    """
    found = own.current()
    if found is None:
        return start
    bundle = start.on(found.path)
    try:
        bundle.part("weights")
    except NotReady as error:
        logger.warning("fine-tuned weights are passed over: %s", error)
        return before or start
    return bundle


def weights_of(bundle: Bundle) -> dict[str, str]:
    """Which weights a bundle runs with: ``name``, ``size`` and ``sha256``; loads them at the first call."""
    info = bundle.part("weights")
    return {"name": Path(info.path).name, "size": bundle.size, "sha256": info.sha256}
