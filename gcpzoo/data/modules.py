"""The zoo's data modules by name."""

from __future__ import annotations

import inspect

from lightning import LightningDataModule

import gcpzoo.data


def data_modules() -> dict[str, type[LightningDataModule]]:
    """Return the zoo's data modules by name, without their common base.

    >>> "Digits" in data_modules()
    True
    """
    base = gcpzoo.data.ImageDataModule
    known = {name: getattr(gcpzoo.data, name) for name in gcpzoo.data.__all__}.items()
    return {n: c for n, c in known if inspect.isclass(c) and issubclass(c, base) and c is not base}
