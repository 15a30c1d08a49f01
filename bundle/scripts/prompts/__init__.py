"""Prompts: the type, its one parser at the border (``document``, ``fields``) and its pure geometry (``geometry``)."""

from .document import Coordinates, PromptDocument, command_line_document, parse_document
from .geometry import (
    PROMPT_KINDS,
    Prompt,
    PromptKind,
    box_of,
    in_window,
    prompt_from_mask,
    rescale,
    to_model_frame,
    voxel_to_world,
)

__all__ = [
    "PROMPT_KINDS",
    "Coordinates",
    "Prompt",
    "PromptDocument",
    "PromptKind",
    "box_of",
    "command_line_document",
    "in_window",
    "parse_document",
    "prompt_from_mask",
    "rescale",
    "to_model_frame",
    "voxel_to_world",
]
