"""Unknown names are answered with the nearest ones."""

import pickle

import pytest

from gcpzoo.errors import ZooError, printable, unknown_name

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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two\nlines", r"two\nlines"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\u2028b\u202ec\x9b", r"a\u2028b\u202ec\x9b"),
        ("Fuß 猫 a\u00a0b \\n", "Fuß 猫 a\u00a0b \\n"),
    ],
)
def test_control_characters_are_escaped_in_every_message(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert str(ZooError(f"no class {text}")) == f"no class {expected}"
    assert expected in str(unknown_name("class", "x", [text]))


def test_an_error_survives_the_way_from_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(ZooError("no\nfile")))
    assert (type(error), str(error)) == (ZooError, "no\\nfile")
