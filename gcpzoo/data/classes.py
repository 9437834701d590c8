"""Classes: the id that data and models are matched by, and the description that people read.

An id is a folder's name or, for ImageNet, a wnid such as ``n01440764``. Everything about ImageNet's classes comes from
timm's lists, and from here only.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

from gcpzoo.errors import ZooError, is_control


@cache
def imagenet_classes() -> dict[str, str]:
    """Map each wnid of ImageNet-1k to its description, in the order of the labels (sorted wnids).

    >>> next(iter(imagenet_classes().items()))
    ('n01440764', 'tench, Tinca tinca')
    """
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return dict(zip(info.label_names(), info.label_descriptions()))


def class_descriptions(ids: Sequence[str]) -> list[str]:
    """Describe classes for people: ImageNet's words for wnids, all other ids as they are.

    >>> class_descriptions(["n01440764", "001.Black_footed_Albatross"])
    ['tench, Tinca tinca', '001.Black_footed_Albatross']
    """
    if not any(is_wnid(name) for name in ids):
        return list(ids)
    known = imagenet_classes()
    return [known.get(name, name) for name in ids]


def class_ids(names: Sequence[str]) -> list[str]:
    """Bring the class names of a checkpoint to ids.

    Checkpoints written before version 0.2 carry torchvision's 1000 ImageNet categories ("tench") or timm's
    descriptions ("tench, Tinca tinca") in place of wnids; all other names are ids already.

    >>> class_ids(list(imagenet_classes().values()))[0]
    'n01440764'
    >>> class_ids(["cat", "dog"])
    ['cat', 'dog']
    """
    if len(names) == 1000:
        from torchvision.models import ResNet50_Weights

        known = imagenet_classes()
        if list(names) in (ResNet50_Weights.IMAGENET1K_V1.meta["categories"], list(known.values())):
            return list(known)
    return list(names)


def is_wnid(name: str) -> bool:
    """Say whether a name is a WordNet id: ``n`` and eight digits.

    >>> is_wnid("n01440764"), is_wnid("tench")
    (True, False)
    """
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()


def check_class_names(names: Sequence[str], source: str) -> None:
    """Refuse class ids that cannot be told apart or printed.

    Args:
        names: the ids.
        source: what they come from, for the message.

    Raises:
        ZooError: if there are no names, or one is not a string, empty, given twice, or holds control characters (a line
            break, an escape sequence) or bytes that are not UTF-8, which no checkpoint could store.

    >>> check_class_names(["cat", "dog\\n"], "ImageFolder")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: ImageFolder: class names must not contain control characters, got 'dog\\n'; rename the class
    """
    if not names:
        raise ZooError(f"{source}: there must be at least one class, got none")
    seen = set()
    for name in names:
        if not isinstance(name, str) or not name:
            raise ZooError(f"{source}: class names must be non-empty strings, got {name!r}")
        if any("\ud800" <= character <= "\udfff" for character in name):  # how Python reads bytes that are not UTF-8
            raise ZooError(f"{source}: class names must be valid UTF-8, got {name!r}; rename the class")
        if any(map(is_control, name)):
            raise ZooError(f"{source}: class names must not contain control characters, got {name!r}; rename the class")
        if name in seen:
            raise ZooError(f"{source}: class names must differ, got {name!r} twice")
        seen.add(name)


def check_spelling(names: Sequence[str], source: str) -> list[str]:
    """Refuse class folders whose names look the same, and give those that differ in case or spacing only.

    Returns:
        ``A and a`` for each such pair: letters may be classes, two spellings of one class should not.

    Raises:
        ZooError: if two names are one text in two Unicode forms, as copying between operating systems makes them.

    >>> check_spelling(["cat", "Cat", "dog"], "train")
    ['cat and Cat']
    >>> check_spelling(["caf\u00e9", "cafe\u0301"], "train")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: train: class folders 'caf\\xe9' and 'cafe\\u0301' are one name in two Unicode forms; ...
    """
    pairs: list[str] = []
    composed: dict[str, str] = {}
    loose: dict[str, str] = {}
    for name in names:
        other = composed.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise ZooError(
                f"{source}: class folders {other!a} and {name!a} are one name in two Unicode forms; "
                "put their images into one folder"
            )
        other = loose.setdefault(spelling(name), name)
        if other != name:
            pairs.append(f"{other} and {name}")
    return pairs


def spelling(name: str) -> str:
    """Reduce a name to what two spellings of it share: no capitals, single spaces, one Unicode form.

    >>> spelling("Black  Cat") == spelling("black cat ")
    True
    """
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def check_same_classes(known: Sequence[str] | None, names: Sequence[str]) -> None:
    """Refuse data of other classes than a model's, or of the same classes in another order.

    Args:
        known: ids of the classes in the order of the model's logits; ``None``: not known.
        names: those of the data in the order of the labels, as many.

    Raises:
        ZooError: naming the first class that differs.

    >>> check_same_classes(["cat", "dog"], ["cat", "eel"])
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: the model's classes are not the data's: class 1 is 'dog' to the model and 'eel' in the ...
    """
    if known is not None and list(known) != list(names):
        other = next(i for i, (a, b) in enumerate(zip(known, names)) if a != b)
        raise ZooError(
            f"the model's classes are not the data's: class {other} is {known[other]!r} to the model and "
            f"{names[other]!r} in the data; rename the folders, or train a new classifier"
        )


def count_classes(data: Any) -> int:
    """Give the number of classes of a data module, also of one from elsewhere.

    Raises:
        ZooError: if it does not say.

    >>> from gcpzoo.data import Digits
    >>> count_classes(Digits())
    10
    """
    if not hasattr(data, "num_classes"):
        raise ZooError(f"{type(data).__name__} must have num_classes and class_names, as data modules do")
    return int(data.num_classes)
