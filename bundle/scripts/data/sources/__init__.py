"""What a case names as its image and label, read: formats, folders of slices, raters, masks that overlap."""

from .images import read_image
from .labels import read_label

__all__ = ["read_image", "read_label"]
