"""Generated thorax-abdomen CTs with labels, so that demo, tests and the small network's training need no patient data.

A seed is a patient and a scan: the anatomy is drawn in millimetres (``anatomy``, ``organs``, ``trunk``), then seen
through a scanner (``scan``), and written with a datalist and prompts to try (``files``). One seed always gives the
same bytes. Volumes of random shapes without names (``random_shapes``, from ``random_forms``, ``random_looks`` and
``random_scene``) teach to segment what a prompt marks.
"""

from .files import save_phantom
from .random_shapes import make_random_shapes
from .scan import Phantom, make_phantom

__all__ = ["Phantom", "make_phantom", "make_random_shapes", "save_phantom"]
