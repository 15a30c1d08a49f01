"""Which structures may share a voxel: a tumour lies in its organ, a lobe in its lung, a vessel in the liver."""

LESIONS = {"tumor", "lesion", "cyst", "nodule", "stone", "node", "sarcoma", "metastasectomy", "metal"}
ANYWHERE = {"abdominal", "mediastinal", "soft", "tissue", "lymph", "left", "right"}  # of a lesion, say no organ
# whole -> how the names of its parts begin, where the words themselves do not tell
PARTS = {
    "bone": (
        *("vertebra", "spine", "sacrum", "coccyx", "rib", "sternum", "skull", "mandible", "clavicle", "scapula"),
        *("humerus", "hip", "femur", "femoral head"),
    ),
    "vertebra": ("vertebrae",),
    "spine": ("vertebra", "sacrum", "coccyx", "spinal cord"),
    "intestine": ("colon", "small bowel", "duodenum", "rectum"),
    "liver": ("hepatic vessel", "portal vein", "biliary system"),
    "brain": ("brainstem", "pituitary gland", "optic chiasm"),
    "artery": ("aorta", "brachiocephalic trunk"),
    "venous system": ("inferior vena cava", "superior vena cava", "vena cava", "portal vein", "vein"),
    "esophagus": ("cervical esophagus", "cricopharyngeal inlet"),
    "heart": ("atrial appendage",),
    "face": ("mandible", "lips", "buccal mucosa", "oral cavity"),
    "skin": ("face",),
}


def may_overlap(one: str, other: str) -> bool:
    """Whether one of two structures, by their vocabulary names, is expected to lie inside the other."""
    return _lies_in(one, other) or _lies_in(other, one)


def is_lesion(name: str) -> bool:
    """Whether a structure is something that a patient may have, of any size, and not an organ."""
    return not LESIONS.isdisjoint(name.split())


def _lies_in(inner: str, outer: str) -> bool:
    """By words: "liver tumor" in "liver", "left lung upper lobe" in "left lung"; and by the parts listed here."""
    inside, outside = set(inner.split()), set(outer.split())
    if outside < inside:
        return True
    if is_lesion(outer) or inside ^ outside >= {"left", "right"}:
        return False
    if is_lesion(inner):
        organ = inside - LESIONS - ANYWHERE
        return organ <= outside or any(_begins(outer, PARTS.get(word, ())) for word in organ)
    return _begins(inner, PARTS.get(outer, ()))


def _begins(name: str, starts: tuple[str, ...]) -> bool:
    return name.removeprefix("left ").removeprefix("right ").startswith(starts)
