"""What is suspicious about a case, one sentence each: what a person should look at before a network learns from it.

Nothing here reads a volume: records say what a case is like, and the set's other records what is usual.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ...vocabulary import Vocabulary
from .nesting import is_lesion, may_overlap
from .patient_axes import by_axis
from .sides import listed, misplaced

PEERS = 8  # fewer cases do not say what is usual
FAR = 5.0  # robust standard deviations of a logarithm
LEAST_SPREAD = 0.2  # of a logarithm: what lies within a factor of e is never far
RARE = 0.1  # share of the cases; what more of them have is no outlier
NEARLY_ALL, LABELLED = 0.95, 20  # share of the cases that have a structure, and how many cases must be labelled
LARGEST, SMALLEST = 2300.0, 10.0  # mm of a field of view
HU_AIR = -500.0  # a CT holds voxels below, at least the gas in the bowel
IN_AIR = -400.0  # HU; no organ without air in it is that thin
AIRY = (
    *("lung", "trachea", "carina", "esophagus", "stomach", "duodenum", "bowel", "colon", "rectum", "intestine"),
    *("oral", "glottis", "larynx", "arytenoid", "inlet", "lips", "mucosa", "face", "skin"),
)

Record = Mapping[str, Any]
Fault = dict[str, str]


@dataclass(frozen=True)
class Usual:
    """Median and robust standard deviation of a logarithm over ``n`` cases.

    ``mixed`` says that many of them lie far from the median: the set has cases of several kinds, and none is unusual.
    """

    middle: float
    spread: float
    n: int
    mixed: bool = False

    @classmethod
    def of(cls, values: Sequence[float]) -> "Usual":
        """From values above 0."""
        logs = [math.log(value) for value in values]
        middle = median(logs)
        spread = max(1.4826 * median(abs(log - middle) for log in logs), LEAST_SPREAD)
        far = sum(abs(log - middle) > FAR * spread for log in logs)
        return cls(middle, spread, len(logs), far > max(1, RARE * len(logs)))

    def is_far(self, value: float) -> bool:
        """Whether a value is unlike the others, where there are enough of them to say so."""
        far = value > 0 and abs(math.log(value) - self.middle) > FAR * self.spread
        return far and self.n >= PEERS and not self.mixed

    def told(self, unit: str) -> str:
        """The median as a clause."""
        return f"where the median of {self.n} cases is {math.exp(self.middle):.3g} {unit}"


@dataclass(frozen=True)
class Peers:
    """What is usual in a set.

    Attributes:
        labelled: cases with a structure.
        present: structure -> cases that have it.
        volumes: structure -> ml, of those that are not cut off by the border of the image.
        spacings: patient axis ("R-L", ...) -> mm.
        fields: patient axis -> mm of the field of view.
    """

    labelled: int
    present: Mapping[str, int]
    volumes: Mapping[str, Usual]
    spacings: Mapping[str, Usual]
    fields: Mapping[str, Usual]

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Peers":
        """From the records of a set."""
        volumes: dict[str, list[float]] = defaultdict(list)
        grids: dict[str, dict[str, list[float]]] = {
            "spacing_mm": defaultdict(list),
            "field_of_view_mm": defaultdict(list),
        }
        present, labelled = Counter[str](), 0
        for record in records:
            present.update(list(record["structures"]))
            labelled += bool(record["structures"])
            for name, structure in record["structures"].items():
                if structure["ml"] > 0 and not structure.get("cut"):
                    volumes[name].append(structure["ml"])
            for key, axes in grids.items():
                for axis, value in by_axis(record, key).items():
                    axes[axis].append(value)
        usual = [{name: Usual.of(values) for name, values in each.items()} for each in (volumes, *grids.values())]
        return cls(labelled, present, *usual)


def faults_of(record: Record, vocabulary: Vocabulary, peers: Peers | Iterable[Record] = ()) -> list[Fault]:
    """What is suspicious about one case.

    Args:
        record: of the case.
        vocabulary: knows which names have a side.
        peers: what is usual in its set; where many cases are asked about, ``Peers.of(records)`` made once.

    Returns:
        ``case``, ``kind`` and ``sentence`` of each fault. Kinds: "empty", "side" (of a name), "mirrored" (left and
        right of the image), "turned" (another axis), "overlap", "nameless", "air" (an organ that lies in it), "volume",
        "spacing", "size", "constant", "intensity", "absent" (a structure that nearly all others have).
    """
    peers = peers if isinstance(peers, Peers) else Peers.of(peers)
    clauses = [
        *_empty(record),
        *misplaced(record["structures"], record.get("body_centroid_ras"), vocabulary),
        *_overlaps(record, vocabulary),
        *_nameless(record),
        *_in_air(record, vocabulary),
        *_volumes(record, vocabulary, peers),
        *_grid(record, peers),
        *_intensity(record),
        *_absent(record, peers),
    ]
    return [{"case": record["case"], "kind": kind, "sentence": f"{record['case']}: {told}"} for kind, told in clauses]


def faults_of_set(records: Sequence[Record], vocabulary: Vocabulary) -> list[Fault]:
    """``faults_of`` for all cases of a set, in their order."""
    peers = Peers.of(records)
    return [fault for record in records for fault in faults_of(record, vocabulary, peers)]


def reading_fault(case: str, error: Exception | str) -> Fault:
    """The fault of a case that could not be read: "grid" where its label lies on another grid, else "unreadable"."""
    sentence = " ".join(str(error).split()) or type(error).__name__
    kind = "grid" if "label grid differs" in sentence else "unreadable"
    return {"case": case, "kind": kind, "sentence": f"{case}: {sentence}"}


def _empty(record: Record) -> list[tuple[str, str]]:
    if record.get("label") is None or record["structures"]:
        return []
    names = [name or f"label {value}" for value, name in record["labels"].items()]
    return [("empty", f"its label is empty; nothing is there of {listed(names) or 'any structure'}")]


def _overlaps(record: Record, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Pairs on one voxel that do not lie in each other by nature, most voxels first."""
    found = []
    for pair, voxels in (record.get("overlaps") or {}).items():
        one, _, other = pair.partition(" over ")
        if voxels and not may_overlap(_canonical(one, vocabulary), _canonical(other, vocabulary)):
            found.append((-voxels, f"{one} and {other} share {voxels} voxels"))
    return [("overlap", listed([text for _, text in sorted(found)]))] if found else []


def _nameless(record: Record) -> list[tuple[str, str]]:
    texts = [
        f"label value {structure['value']} ({structure['voxels']} voxels) has no name in labels"
        for structure in record["structures"].values()
        if str(structure["value"]) not in record["labels"]
    ]
    return [("nameless", listed(texts))] if texts else []


def _in_air(record: Record, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Organs whose mean intensity is that of air: the label lies beside what it means."""
    low = record["intensity"]["min"]
    texts = []
    for name, structure in record["structures"].items():
        mean, known = structure.get("intensity"), _canonical(name, vocabulary)
        solid = known in vocabulary and not is_lesion(known) and not any(word in known for word in AIRY)
        if low is not None and low < HU_AIR and mean is not None and mean < IN_AIR and solid:
            texts.append(f"{name} has a mean of {mean:.0f} HU")
    return [("air", f"{listed(texts)}, so its label seems to lie in air")] if texts else []


def _volumes(record: Record, vocabulary: Vocabulary, peers: Peers) -> list[tuple[str, str]]:
    texts = []
    for name, structure in record["structures"].items():
        usual, ml = peers.volumes.get(name), structure["ml"]
        if usual is None or is_lesion(_canonical(name, vocabulary)) or not usual.is_far(ml):
            continue
        if math.log(ml) > usual.middle or not structure.get("cut"):
            texts.append(
                f"{name} has {ml:.3g} ml, where the median of {usual.n} cases is {math.exp(usual.middle):.3g} ml"
            )
    return [("volume", listed(texts))] if texts else []


def _grid(record: Record, peers: Peers) -> list[tuple[str, str]]:
    found = []
    for kind, key, word, usuals in (
        ("spacing", "spacing_mm", "spacing", peers.spacings),
        ("size", "field_of_view_mm", "field of view", peers.fields),
    ):
        texts = []
        for axis, value in by_axis(record, key).items():
            usual = usuals.get(axis)
            if kind == "size" and not SMALLEST <= value <= LARGEST:
                texts.append(f"the {word} along {axis} is {value:.4g} mm, which a scan of a patient hardly has")
            elif usual is not None and usual.is_far(value):
                middle = f"{math.exp(usual.middle):.3g} mm"
                texts.append(
                    f"the {word} along {axis} is {value:.3g} mm, where the median of {usual.n} cases is {middle}"
                )
        found += [(kind, listed(texts))] if texts else []
    return found


def _intensity(record: Record) -> list[tuple[str, str]]:
    """An image that is constant, or that does not look like a CT in HU."""
    low, p01, high = (record["intensity"][key] for key in ("min", "p01", "max"))
    if low is None or high is None or p01 is None:
        return [("intensity", "it holds voxels that are no finite numbers")]
    between = f"its intensities lie between {low:.4g} and {high:.4g}"
    if low == high:
        return [("constant", f"the image is constant ({low:.4g})")]
    if low >= 0 and high <= 1:
        return [("intensity", f"{between}: normalised, no HU")]
    if low >= 0 and high <= 255:
        return [("intensity", f"{between}: grey values of 8 bits, no HU")]
    if low >= 0:
        return [("intensity", f"{between}: no HU, perhaps a CT without its rescale intercept, or another modality")]
    return [("intensity", f"{between}: no air, so perhaps no HU, or clipped")] if low > HU_AIR else []


def _absent(record: Record, peers: Peers) -> list[tuple[str, str]]:
    """Softly: what nearly all labelled cases of the set have and this one lacks."""
    if not record["structures"] or peers.labelled < LABELLED:
        return []
    lacks = [
        f"no {name} ({count} of {peers.labelled} labelled cases have it)"
        for name, count in sorted(peers.present.items())
        if name not in record["structures"] and count >= NEARLY_ALL * peers.labelled
    ]
    return [("absent", listed(lacks))] if lacks else []


def _canonical(name: str, vocabulary: Vocabulary) -> str:
    found = vocabulary.find(name)
    return name if found is None else found.name
