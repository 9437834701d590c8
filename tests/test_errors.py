"""Unknown names are answered with the nearest ones."""

import pytest

from gcpzoo.errors import unknown_name

NAMES = ["resnet50_isqrt.in1k_li2018", "resnet50_gap.in1k_wang2020_lrnorm", "vgg16_bn_isqrt.in1k_li2018"]


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("adamW", ["Adam", "AdamW", "RAdam"], "did you mean AdamW?"),
        ("resnet50_isqrt.in1k_li2008", NAMES, "did you mean resnet50_isqrt.in1k_li2018"),
        ("resnt50", NAMES, "resnet50_"),
        ("vgg16", NAMES, "did you mean vgg16_bn_isqrt"),
        ("zzz", ["a", "b"], "available: a, b"),
        ("zzz", [], "available: none"),
        ("%%%", [f"n{i}" for i in range(50)], "50 are available, such as n0"),
    ],
)
def test_the_nearest_names_are_offered(name: str, known: list[str], expected: str) -> None:
    assert expected in str(unknown_name("thing", name, known))
