"""What the parser of ``gcpzoo fit`` cannot know of a sweep's options: names of networks and data, and what it sets."""

from __future__ import annotations

from typing import Any

from gcpzoo.errors import ZooError, unknown_name
from gcpzoo.experiments.sweep.options import Options, get

OWN_DATA = "gcpzoo.data."


def check_keys(content: Any, known: tuple[str, ...], where: str) -> None:
    """Refuse what is no mapping, and keys that are not known.

    >>> check_keys({"seed": [0]}, ("axes", "seeds"), "mine.yaml")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: mine.yaml: unknown key 'seed': did you mean seeds?
    """
    if not isinstance(content, dict):
        raise ZooError(f"{where} must be a mapping of {', '.join(known)}, got {type(content).__name__}")
    for key in content:
        if key not in known:
            raise ZooError(f"{where}: {unknown_name('key', str(key), known)}")


def check_options(options: Options, where: str, searched: bool = False, trial: bool = False) -> None:
    """Refuse options of a training that cannot run in a sweep.

    Args:
        options: of the training.
        where: which training, named in errors.
        searched: whether some of the options are chosen by a search.
        trial: whether it is a trial of the search itself.

    Raises:
        ZooError: if the head, the backbone or the data do not exist, an option belongs to the sweep, or a search would
            see the test images.

    >>> check_options({"model": {"head": "gapp"}}, "mine.yaml: gapp")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: mine.yaml: gapp: unknown head 'gapp': did you mean gap?
    """
    try:
        _check_names(options)
    except ZooError as error:
        raise ZooError(f"{where}: {error}") from None
    for key in ("output", "resume", "ckpt_path"):
        if options.get(key) is not None:
            raise ZooError(f"{where}: {key} is set by the sweep itself: leave it out")
    if options.get("best"):
        raise ZooError(f"{where}: a sweep tests the final epoch of each training: leave out best")
    if options.get("generations", 1) not in (None, 1):
        raise ZooError(f"{where}: a cell is one training: set generations to 1")
    if (searched or trial) and get(options, "data.init_args.val_on_test"):
        raise ZooError(f"{where}: a search must not see the test images: leave out data.val_on_test")
    if searched and options.get("evaluate") is False:
        raise ZooError(f"{where}: evaluate must be true, or no figures come of the search")


def _check_names(options: Options) -> None:
    from gcpzoo.data.modules import data_modules
    from gcpzoo.heads import list_heads
    from gcpzoo.models.backbones import check_backbone

    if not get(options, "model.checkpoint"):  # it has its own head and backbone
        head, backbone = get(options, "model.head"), get(options, "model.backbone")
        if head is not None and head not in list_heads():
            raise unknown_name("head", str(head), list_heads())
        if backbone is not None:
            check_backbone(str(backbone))
    data = get(options, "data.class_path")
    if data is None:
        raise ZooError("no data: set data in base, or data.class_path for this value of the axis data")
    name = str(data).removeprefix(OWN_DATA)
    if str(data).startswith(OWN_DATA) and "." not in name and name not in data_modules():
        raise unknown_name("data module", name, data_modules())
