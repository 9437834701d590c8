"""Each class that has parameters says what its authors call them, once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torchvision
from torch import nn

import gcpzoo
from gcpzoo.blocks import BLOCKS, insert
from gcpzoo.errors import ZooError
from gcpzoo.heads import create_head, list_heads
from gcpzoo.heads.reduction import Reduction

PACKAGE = Path(gcpzoo.__file__).parent


def missing(names: Iterable[str], table: Mapping[str, str]) -> list[str]:
    """The names that no entry of the table is, or stands above."""
    return [n for n in names if not any(n == own or n.startswith(f"{own}.") for own in table.values())]


@pytest.mark.parametrize("name", list_heads())
def test_the_table_of_a_head_has_all_its_parameters(name: str) -> None:
    head = create_head(name, in_features=8)
    assert missing((n for n, _ in head.named_parameters()), head.RELEASED_NAMES) == []


def test_the_table_of_the_reduction_has_all_its_parameters() -> None:
    names = [n for n, _ in Reduction(8, 4).named_parameters()]
    assert names
    assert missing(names, Reduction.RELEASED_NAMES) == []


@pytest.mark.parametrize(("name", "arguments"), [*((n, {}) for n in BLOCKS), ("gsop", {"attention": "concatenation"})])
def test_what_a_block_adds_has_its_parameters_in_a_table(name: str, arguments: dict[str, str]) -> None:
    for network in ("resnet50", "vit_b_16"):
        plain = torchvision.models.get_model(network)
        own = set(plain.state_dict())
        try:
            net = insert(plain, {name: arguments})
        except ZooError:  # a block of other networks
            continue
        break
    modules = dict(net.named_modules())
    for parameter, _ in net.named_parameters():
        parts = parameter.split(".")
        above = [(modules[".".join(parts[:k])], ".".join(parts[k:])) for k in range(len(parts))]
        tables = [(m, rest) for m, rest in above if is_part(m)]
        if not tables:  # a parameter of the network, under its own name
            assert parameter in own
        for module, rest in tables:
            assert missing([rest], module.RELEASED_NAMES) == []


def is_part(module: nn.Module) -> bool:
    """Whether it is a module of ours, and no wrapping of a network's own block, which keeps its names."""
    kind = type(module)
    return kind.__module__.startswith("gcpzoo.blocks") and not re.fullmatch(r"_.*|.*Block|OnMap", kind.__name__)


def test_no_released_name_stands_in_a_converter_too() -> None:
    """A converter takes the names of heads and blocks from their tables."""
    tables = [Reduction.RELEASED_NAMES, *(create_head(n, in_features=8).RELEASED_NAMES for n in list_heads())]
    tables += [m.RELEASED_NAMES for m in insert(torchvision.models.resnet50(), {"gsop": {}}).modules() if is_part(m)]
    words = {w for table in tables for theirs in table for w in re.findall(r"[a-z]+_\w+", theirs)}
    assert {"layer_reduce", "eca_layer", "row_conv_group"} <= words
    for file in (PACKAGE / "hub" / "convert").glob("*.py"):
        code = re.sub(r'"""(?:.|\n)*?"""', "", file.read_text(encoding="utf-8"))
        found = [w for w in words if re.search(rf"\b{w}\b", code)]
        assert not found, file.name
