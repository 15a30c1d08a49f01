"""Many cases: shared out to the processes of torchrun (``turns``), or to the workers of Dask (``workers``)."""

from .turns import Turns
from .workers import over_workers

__all__ = ["Turns", "over_workers"]
