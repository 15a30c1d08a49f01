"""SimMIM: the image encoder learns from unlabelled images to fill in what it is not shown (paper section 2.5)."""

from .masking import Masking
from .model import SimMIM
from .views import UnlabelledViews

__all__ = ["Masking", "SimMIM", "UnlabelledViews"]
