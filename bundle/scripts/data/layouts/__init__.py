"""Where the images and labels of a downloaded data set lie: a folder becomes a list of cases."""

from .generic import generic_set
from .listing import find_cases
from .raw_case import Found, RawCase

__all__ = ["Found", "RawCase", "find_cases", "generic_set"]
