"""Options, classes and configs of gcpzoo 0.1: their former names are refused with an error that gives the new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gcpzoo.errors import ZooError
from gcpzoo.limits import load_yaml
from gcpzoo.training.upgrade import MOVED, RENAMED

CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
MOVED_OPTIONS = {
    **{f"model.{old}": "model." + ".".join(new) for old, new in MOVED.items()},
    **{f"model.{old}": f"model.{new}" for old, new in RENAMED.items()},
}
MOVED_CLASSES = {
    "gcpzoo.callbacks.": "gcpzoo.training.",
    "gcpzoo.task.": "gcpzoo.training.",
    "gcpzoo.data.PictureDataModule": "gcpzoo.data.ImageDataModule",
}
MOVED_CONFIGS = {
    "finetune/pictures.yaml": "finetune/images.yaml",
    "finetune/cub_isqrt.yaml": "paper/isqrt/cub_resnet50.yaml",
    "finetune/aircraft_isqrt.yaml": "paper/isqrt/aircraft_resnet50.yaml",
    "finetune/cars_isqrt.yaml": "paper/isqrt/cars_resnet50.yaml",
    "finetune/cub_svd_pade.yaml": "paper/svd/cub_resnet50_pade.yaml",
    "finetune/cub_bcnn_two_stage.yaml": "paper/bcnn/cub_vgg16.yaml",
    "pretrain/imagenet_isqrt.yaml": "paper/isqrt/imagenet_resnet50.yaml",
    "pretrain/imagenet_lradju.yaml": "paper/gcp_optimization/resnet18_lradju.yaml",
    "pretrain/imagenet_dropcov_deit.yaml": "paper/dropcov/imagenet_deit_small.yaml",
    "pretrain/imagenet_svd_pade_hybrid.yaml": "paper/svd/hybrid_resnet50_pade.yaml",
}


def refuse_former_names(content: Any, where: str = "") -> None:
    """Check the options and classes of a config, or of one option of the command line.

    Args:
        content: nested options; strings may hold further ones as YAML or JSON, as the command line does.
        where: start of the message, such as the name of a file.

    Raises:
        ZooError: if an option or a class has moved: the message gives its new name.

    >>> refuse_former_names({"model": {"lr": 0.1}})
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: option 'model.lr' is now 'model.optimizer.lr'
    >>> refuse_former_names({"trainer.callbacks": "gcpzoo.callbacks.HybridRoot"}, "mine.yaml: ")
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: mine.yaml: 'gcpzoo.callbacks.HybridRoot' is now 'gcpzoo.training.HybridRoot'
    """
    for option, value in _flatten(content):
        if new := _new_option(option, value):
            raise ZooError(f"{where}option {option!r} is now {new!r}")
        for old, new in MOVED_CLASSES.items():
            if isinstance(value, str) and value.startswith(old):
                raise ZooError(f"{where}{value!r} is now {value.replace(old, new)!r}")


def _flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names with their values: groups, then what they hold."""
    if isinstance(content, str) and content.startswith(("{", "[")):
        try:
            content = load_yaml(content, "an option")
        except ZooError:
            return  # the parser says what is wrong with it
    if isinstance(content, list):
        for value in content:
            yield from _flatten(value, prefix)
        return
    if prefix:
        yield prefix, content
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))


def _new_option(option: str, value: Any) -> str | None:
    """Return the new name of an option that has moved; ``None`` for one of today."""
    for old, new in MOVED_OPTIONS.items():
        if new.startswith(f"{old}."):  # the former name of a class is a group of options today
            is_class_name = isinstance(value, str) and not value.endswith(CONFIG_SUFFIXES)
            if option == old and is_class_name:
                return new
        elif option == old or option.startswith(f"{old}."):
            return new + option.removeprefix(old)
    return None
