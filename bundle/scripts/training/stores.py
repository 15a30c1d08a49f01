"""Which cases of a run are read from disk as they were prepared, and which are prepared anew."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from ..data.storage.store import StoredCase, open_case

logger = logging.getLogger(__name__)


class StoredCases:
    """Finds the stores of a run's cases, and says once where a store is of another kind than the run needs.

    Args:
        settings: what the run's transforms do; every one of them must be the store's. None opens no store.
    """

    def __init__(self, settings: Mapping[str, Any] | None) -> None:
        self.settings = None if settings is None else json.loads(json.dumps(settings))  # tuples are lists in a store
        self._told = False

    def find(self, case: Mapping[str, Any]) -> StoredCase | None:
        """The store of a case; None where it has none that this run can use, so that it is to be prepared."""
        if self.settings is None or not case.get("prepared"):
            return None
        try:
            stored = open_case(case["prepared"])
        except ValueError as error:
            logger.warning("%s; %s is prepared anew", error, case["image"])
            return None
        differs = self._difference(case, stored)
        if differs and not self._told:
            self._told = True
            logger.warning("prepared: %s %s; this and others like it are prepared anew", case["prepared"], differs)
        return None if differs else stored

    def _difference(self, case: Mapping[str, Any], stored: StoredCase) -> str:
        """In what a store is not what the run needs."""
        for key, value in (self.settings or {}).items():
            found = stored.settings.get(key)
            if found != value:
                return f"was prepared with {key} {found!r}, this run needs {value!r}"
        needed = {"image"} | ({"label"} & case.keys())
        needed |= {"pseudo_mask"} if any(key.startswith("pseudo_") for key in self.settings or ()) else set()
        missing = sorted(needed - stored.grids.keys())
        return f"has no {missing[0]}" if missing else ""
