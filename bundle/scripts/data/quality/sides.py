"""Whether structures lie where their names, or anatomy, put them: left and right, above and below, before and behind.

Swapped names and turned-over axes are told apart by the company: where everything is on the other side, the image is
mirrored; where one pair is, its names are swapped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ...vocabulary import Vocabulary

EXPECTED = {"liver": "right", "gallbladder": "right", "spleen": "left"}
LEFT_OF = (("spleen", "liver"), ("aorta", "inferior vena cava"))  # the first lies to the patient's left of the second
# the first lies above, or in front of, the second
ORDERED = (
    (2, "heart", "liver"),
    (2, "liver", "urinary bladder"),
    (2, "spleen", "urinary bladder"),
    (2, "left kidney", "urinary bladder"),
    (2, "right kidney", "urinary bladder"),
    (2, "left lung", "left kidney"),
    (2, "right lung", "right kidney"),
    (2, "brain", "mandible"),
    (2, "vertebrae T12", "vertebrae L4"),
    (1, "liver", "spinal cord"),
    (1, "heart", "spinal cord"),
    (1, "urinary bladder", "sacrum"),
    (1, "mandible", "brainstem"),
)
WORDS = {1: ("behind", "back to front"), 2: ("below", "upside down")}
MIDLINE = ("vertebra", "spine", "spinal cord", "sacrum", "brainstem")  # how names of what marks the midline begin
CROSSING = ("vein", "artery", "atrium", "ventricle", "appendage", "tumor", "lesion")  # may reach over the midline
PAIR_MARGIN, SPINE_MARGIN, BODY_MARGIN, ORDER_MARGIN = 10.0, 10.0, 20.0, 20.0  # mm that are forgiven
SHOWN = 3

Structures = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class _Witness:
    """What one pair, or one structure beside the midline, says of the sides."""

    text: str
    wrong: bool
    named: bool  # its side is in its name


def misplaced(
    structures: Structures, body_centroid: Sequence[float] | None, vocabulary: Vocabulary
) -> list[tuple[str, str]]:
    """Kind and clause of what lies on the wrong side: "side", "mirrored" or "turned".

    Args:
        structures: of a record.
        body_centroid: (3,) RAS mm; None where the middle of the body is not known.
        vocabulary: knows which names have a side.
    """
    known = {}
    for name, structure in structures.items():
        found = vocabulary.find(name)
        if found is not None:
            known[found.name] = structure
    witnesses = _pairs(known, vocabulary) + _lone(known, body_centroid, vocabulary)
    return _sides(witnesses) + _turned(known)


def listed(texts: Sequence[str]) -> str:
    """The first clauses of a sentence, and how many more there are."""
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def _sides(witnesses: Sequence[_Witness]) -> list[tuple[str, str]]:
    wrong, right = ([w for w in witnesses if w.wrong is side] for side in (True, False))
    if not wrong:
        return []
    told = listed([witness.text for witness in wrong])
    if not right and len(wrong) > 1 and not all(witness.named for witness in wrong):
        return [("mirrored", f"all that has a side lies on the other one, as if the image were mirrored: {told}")]
    agreed = f"{len(right)} of {len(witnesses)} sides are as they should be: its name seems swapped"
    reason = agreed if right else "its name is swapped, or the image mirrored"
    return [("side", f"{told} ({reason})")]


def _pairs(known: Structures, vocabulary: Vocabulary) -> list[_Witness]:
    """Left and right of a pair, and pairs of organs that lie side by side."""
    lefts = [name for name in known if (found := vocabulary.find(name)) is not None and found.side == "left"]
    pairs = [(name, vocabulary.mirrored(name), True) for name in lefts] + [(*pair, False) for pair in LEFT_OF]
    witnesses = []
    for left, right, named in pairs:
        if left in known and right in known:
            gap = _x(known[left]) - _x(known[right])
            if gap < 0 or gap > PAIR_MARGIN:
                text = f"{left} lies {gap:.0f} mm to the patient's right of {right}"
                witnesses.append(_Witness(text, gap > 0, named))
    return witnesses


def _lone(known: Structures, body_centroid: Sequence[float] | None, vocabulary: Vocabulary) -> list[_Witness]:
    """Structures without their counterpart, beside the midline."""
    middle, margin = _midline(known, body_centroid)
    witnesses = []
    for name, structure in known.items():
        found = vocabulary.find(name)
        named = found.side if found is not None else None
        side = named or (None if structure.get("cut") else EXPECTED.get(name))
        if middle is None or side is None or vocabulary.mirrored(name) in known and named:
            continue
        offset = _x(structure) - middle  # towards the patient's right
        beyond = offset if side == "left" else -offset
        if not any(word in name for word in CROSSING) and (beyond > margin or beyond < 0):
            other = "right" if side == "left" else "left"
            text = f"{name} lies {abs(offset):.0f} mm to the patient's {other} of the midline"
            witnesses.append(_Witness(text, beyond > 0, named is not None))
    return witnesses


def _midline(known: Structures, body_centroid: Sequence[float] | None) -> tuple[float | None, float]:
    """Its x in RAS mm, by the spine or else by the body, and the mm that are forgiven."""
    spine = [_x(structure) for name, structure in known.items() if name.startswith(MIDLINE)]
    if spine:
        return median(spine), SPINE_MARGIN
    return (None if body_centroid is None else float(body_centroid[0])), BODY_MARGIN


def _turned(known: Structures) -> list[tuple[str, str]]:
    """Axes from feet to head and from back to front that seem to be turned over."""
    found = []
    for axis, (word, turned) in WORDS.items():
        pairs = [(one, other) for along, one, other in ORDERED if along == axis and one in known and other in known]
        gaps = [known[other]["centroid_ras"][axis] - known[one]["centroid_ras"][axis] for one, other in pairs]
        if gaps and min(gaps) > ORDER_MARGIN:
            told = [f"{one} lies {gap:.0f} mm {word} {other}" for (one, other), gap in zip(pairs, gaps, strict=True)]
            found.append(("turned", f"the image seems to lie {turned}: {listed(told)}"))
    return found


def _x(structure: Mapping[str, Any]) -> float:
    return float(structure["centroid_ras"][0])
