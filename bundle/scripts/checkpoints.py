"""Every published SegVol file, and this project's own, becomes the weights of this network, strictly.

Whatever the wrapping (``module.``, ``model.``) and whichever transformers version wrote the CLIP tower, after renaming
nothing may be missing, unexpected or misshapen.
"""

import hashlib
import logging
import os
import pickle
import re
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPTextModel

from .arguments import as_path, exit_on_error

logger = logging.getLogger(__name__)

State = dict[str, torch.Tensor]

# where the weights may lie in a file, in the order in which they are looked for
_CONTAINERS = ("model", "model_state_dict", "state_dict")
_PREFIXES = ("module.", "model.")
_CLIP_SOURCES = "a released SegVol file, a folder of a CLIP model, or a hub name such as openai/clip-vit-base-patch32"
# official names, to be written as ours
_RENAMES = (
    (re.compile(r"^text_encoder\.dim_align\."), "text_align."),
    (re.compile(r"^text_encoder\.clip_text_model\."), "text_encoder."),
    (re.compile(r"^text_encoder\.text_model\."), "text_encoder."),
    (re.compile(r"\.mlp\.lin([12])\."), r".mlp.linear\1."),
)
# in the files, read by nothing: SAM's 2D mask prompt, an index buffer of old transformers, a norm of new MONAI
_UNREAD = re.compile(
    r"^prompt_encoder\.mask_downscaling\.|^text_encoder\.embeddings\.position_ids$|\.norm_cross_attn\.(weight|bias)$"
)


@dataclass(frozen=True)
class CheckpointInfo:
    """What was loaded: for summaries, and the row order of a text table."""

    path: str
    sha256: str
    text_names: tuple[str, ...] | None = None


def load_checkpoint(network: nn.Module, path: str | Path) -> CheckpointInfo:
    """Load a whole model into ``network``.

    Args:
        network: a SegVol of the size that the file holds.
        path: SegVol_v1.pth, pytorch_model.bin, model.safetensors, a SegFM epoch_*.pth, or a file of this project.

    Raises:
        ValueError: one line that says what is wrong with the file; the network is unchanged then.
    """
    path = Path(path)
    content = _read(path)
    return _load_whole(network, _to_our_names(_weights_of(content, path)), content, path)


def load_for_run(network: nn.Module, path: Any) -> CheckpointInfo:
    """``load_checkpoint`` as a step of a config.

    Raises:
        SystemExit: one line, for a file that cannot be loaded.
    """
    with exit_on_error():
        return load_checkpoint(network, as_path(path, "checkpoint") or "")


def load_for_training(
    network: nn.Module, path: Any = None, clip: Any = None, text_encoder: Any = None, needs_text: bool = True
) -> None:
    """Start training from what there is, as a step of a config.

    Args:
        network: a SegVol with fresh weights.
        path: a whole model or a pre-trained image encoder alone; None keeps the fresh weights.
        clip: where the CLIP tower comes from (``load_clip_tower``), for a network that has one.
        text_encoder: takes the row order of the text table of a whole model.
        needs_text: whether training asks by text, for which a tower of random weights is no use.

    Raises:
        SystemExit: one line, for a file that cannot be loaded, and where the tower would stay random.
    """
    with exit_on_error():
        file = as_path(path, "checkpoint")
        whole = file is not None and _start_from(network, file, text_encoder)
        if clip is not None:
            load_clip_tower(network, clip)
        elif needs_text and not whole and getattr(network, "text_encoder", None) is not None:
            raise ValueError(
                "clip is missing: training by text needs a pre-trained CLIP text tower, which --checkpoint does not "
                f"bring; it takes {_CLIP_SOURCES}"
            )


def _start_from(network: nn.Module, path: Path, text_encoder: Any) -> bool:
    """Whether ``path`` was a whole model."""
    content = _read(path)
    weights = _weights_of(content, path)
    state = _to_our_names(weights)
    whole = _is_whole(state)
    if whole:
        names = _load_whole(network, state, content, path).text_names
        if names is not None and text_encoder is not None:
            text_encoder.load_state_dict({"names": list(names)})
    else:
        _load_encoder(network, weights, path)
    return whole


def load_clip_tower(network: nn.Module, source: Any) -> None:
    """Load the frozen CLIP text tower alone, strictly.

    Args:
        network: a SegVol with a tower.
        source: a released SegVol file, a local folder of a CLIP model as transformers saves it, or a hub name, which
            is downloaded. The published tower is that of ``openai/clip-vit-base-patch32``.

    Raises:
        ValueError: one line, where it cannot be read, is of another architecture, or the network has no tower.
    """
    tower = getattr(network, "text_encoder", None)
    if tower is None:
        raise ValueError("clip: this network has no CLIP tower; --size base has one")
    path = as_path(source, "clip") or Path()
    try:
        if path.is_file():
            whole = _to_our_names(_weights_of(_read(path), path))
            given = {name: value for name, value in whole.items() if name.startswith("text_encoder.")}
        else:
            given = _clip_model(str(source), path.is_dir())
        _load_strictly(nn.ModuleDict({"text_encoder": tower}), given, path)
    except ValueError as error:
        raise ValueError(str(error).replace("checkpoint:", "clip:", 1)) from error


def _clip_model(source: str, local: bool) -> State:
    """The tensors of a CLIP text model from a folder, or from the hub."""
    if not local and not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ValueError(f"clip: {source} does not exist; it takes {_CLIP_SOURCES}")
    try:
        loaded: Any = CLIPTextModel.from_pretrained(source, local_files_only=local, output_loading_info=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"clip: {source} holds no CLIP text model: {_reason(error)}") from error
    model, found = loaded
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"clip: {source} holds no CLIP text model; {len(missing)} missing: {_some(missing)}")
    return {f"text_encoder.{name}": value for name, value in model.state_dict().items()}


def load_image_encoder(network: nn.Module, path: str | Path) -> list[str]:
    """Load a pre-trained ViT (ViT_pretrain.ckpt, or a whole model) into ``network.image_encoder``, for training.

    Returns:
        The names in the file that do not belong to the encoder and were skipped.

    Raises:
        ValueError: one line, where the file does not hold the whole encoder.
    """
    path = Path(path)
    return _load_encoder(network, _weights_of(_read(path), path), path)


def _load_encoder(network: nn.Module, state: State, path: Path) -> list[str]:
    encoder: State = {}
    skipped: list[str] = []
    for name, value in state.items():
        match = re.match(r"^(?:module\.|model\.)?(?:encoder|image_encoder)\.(.+)$", name)
        if match and not _UNREAD.search("." + match.group(1)):
            encoder[match.group(1)] = value
        elif not match:
            skipped.append(name)
    _load_strictly(network.get_submodule("image_encoder"), encoder, path)
    if skipped:
        logger.info("%s: skipped %d tensors outside the image encoder: %s", path.name, len(skipped), skipped[:4])
    return skipped


def save_checkpoint(network: nn.Module, path: str | Path, text_names: tuple[str, ...] | None = None) -> None:
    """Write ``network`` as a file of this project, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"model": network.state_dict()}
    if text_names is not None:
        content["text_table"] = {"names": list(text_names)}
    # not tempfile's, which nobody else may read; torch writes all but the last suffix into the file
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        torch.save(content, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> Any:
    if os.path.isdir(path):  # pathlib's raises for a name that is too long
        raise ValueError(f"checkpoint: {path} is a folder; it takes a file")
    if not os.path.isfile(path):
        raise ValueError(
            f"checkpoint: {path} does not exist; large_files.yml names where to download the released weights, and "
            "the overlay configs/small.json runs the small weights that come with the bundle"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # about what is refused the next moment
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  whatever a broken or hostile file raises becomes one line
        raise ValueError(f"checkpoint: {path} cannot be loaded safely: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error)
    refused = re.search(r"(?:Unsupported global: GLOBAL|Unsupported class|GLOBAL) ([\w.]+)", text)
    if refused:
        return f"it asks for the global {refused.group(1)}, and only tensors are read (weights_only)"
    if isinstance(error, pickle.UnpicklingError | LookupError | EOFError):  # torch would advise to load it unsafely
        return "it is damaged, or not a file of tensors"
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return line.partition(". ")[0][:200]


def _weights_of(content: Any, path: Path) -> State:
    for key in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"checkpoint: {path} holds no weights (a mapping of names to tensors)")
    strangers = [str(k) for k, v in content.items() if not isinstance(k, str) or not isinstance(v, torch.Tensor)]
    if strangers:
        raise ValueError(f"checkpoint: {path} holds no plain weights; not tensors: {_some(strangers)}")
    return dict(content)


def _text_names(content: Any, path: Path) -> tuple[str, ...] | None:
    table = content.get("text_table")
    if table is None:
        return None
    names = table.get("names") if isinstance(table, Mapping) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"checkpoint: {path} has a text_table without a list of names")
    return tuple(names)


def _to_our_names(state: State) -> State:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    renamed: State = {}
    for name, value in state.items():
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        if not _UNREAD.search(name):
            renamed[name] = value
    return renamed


def _is_whole(state: State) -> bool:
    return any(name.startswith("mask_decoder.") for name in state)


def _load_whole(network: nn.Module, state: State, content: Any, path: Path) -> CheckpointInfo:
    names = _text_names(content, path)
    if state and not _is_whole(state):
        raise ValueError(
            f"checkpoint: {path} is not a whole model (no mask decoder); a pre-trained image encoder starts training"
        )
    _load_strictly(network, state, path)
    return CheckpointInfo(str(path), _sha256(path), names)


def _load_strictly(module: nn.Module, state: State, path: Path) -> None:
    own = {_tower_name(name): name for name in module.state_dict()}
    given = {_tower_name(name): value for name, value in state.items()}
    sizes = module.state_dict()
    faults = {
        "missing": sorted(own.keys() - given.keys()),
        "unexpected": sorted(given.keys() - own.keys()),
        "of another shape": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(sizes[own[name]].shape)}"
            for name in sorted(own.keys() & given.keys())
            if given[name].shape != sizes[own[name]].shape
        ],
    }
    found = [f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names]
    if found:
        raise ValueError(f"checkpoint: {path} does not fit this network; {'; '.join(found)}")
    module.load_state_dict({own[name]: value for name, value in given.items()})


def _tower_name(name: str) -> str:
    """The CLIP tower's names without the level that transformers 5 dropped."""
    return name.replace("text_encoder.text_model.", "text_encoder.")


def _some(names: list[str]) -> str:
    return ", ".join(" ".join(name.split()) for name in names[:4]) + (", ..." if len(names) > 4 else "")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
