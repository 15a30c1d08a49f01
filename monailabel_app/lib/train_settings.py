"""What a request may choose about a training: a closed list of plain values, each checked. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_EPOCHS = 1000
MAX_VIEWS = 100_000
MAX_RATE = 0.01
LEAST_VIEWS = 4
PASSED_OVER = frozenset({"client_id"})  # what clients send with every request


@dataclass(frozen=True)
class TrainSettings:
    """A checked choice.

    Attributes:
        device: where to train.
        max_epochs: passes; after each the validation cases are looked at.
        views_per_epoch: views of the training cases in one of them.
        val_split: share of the cases that judge.
        learning_rate: of AdamW, at its highest.
    """

    device: str
    max_epochs: int = 10
    views_per_epoch: int = 200
    val_split: float = 0.2
    learning_rate: float = 2e-5


def options(devices: Sequence[str]) -> dict[str, Any]:
    """The settings with their defaults, as viewers show them."""
    chosen = vars(TrainSettings(devices[0]))
    return {**chosen, "device": list(devices)}


def read_settings(params: Mapping[str, Any], devices: Sequence[str]) -> TrainSettings:
    """Read the settings of a request; what is no setting is passed over, see ``refuse_unknown``.

    Args:
        params: viewers send numbers as texts, too.
        devices: the allowed ones, the default first.

    Raises:
        ValueError: one sentence that names the setting and what is allowed.
    """
    standard = TrainSettings(devices[0])
    return TrainSettings(
        device=_one_of(params.get("device", standard.device), devices),
        max_epochs=_whole(params, "max_epochs", standard.max_epochs, 1, MAX_EPOCHS),
        views_per_epoch=_whole(params, "views_per_epoch", standard.views_per_epoch, LEAST_VIEWS, MAX_VIEWS),
        val_split=_between(params, "val_split", standard.val_split, 1.0),
        learning_rate=_between(params, "learning_rate", standard.learning_rate, MAX_RATE),
    )


def refuse_unknown(params: Mapping[str, Any]) -> None:
    """Refuse what is no setting: nothing of a request reaches a config but the values above.

    Raises:
        ValueError: one sentence.
    """
    known = vars(TrainSettings("")).keys()
    if unknown := sorted(set(params) - known - PASSED_OVER):
        raise ValueError(f"'{unknown[0][:64]}' is no setting of a training; it takes {', '.join(known)}")


def _one_of(value: Any, allowed: Sequence[str]) -> str:
    given = value[0] if isinstance(value, list) and value else value  # a viewer's untouched list of choices
    if given not in allowed:
        raise ValueError(f"device must be {' or '.join(allowed)}")
    return str(given)


def _whole(params: Mapping[str, Any], name: str, standard: int, least: int, most: int) -> int:
    value = _number(params.get(name, standard))
    if value is None or value != int(value) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}")
    return int(value)


def _between(params: Mapping[str, Any], name: str, standard: float, most: float) -> float:
    value = _number(params.get(name, standard))
    if value is None or not 0 < value < most:
        raise ValueError(f"{name} must be a number above 0 and below {most:g}")
    return value


def _number(value: Any) -> float | None:
    """A finite number, also one in a text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e9 else None
