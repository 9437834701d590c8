"""SMSO: the authors' values, its root, one position, and that no covariance is formed."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from golden_heads import Case, check_case, load_released
from head_tester import HeadTester
from module_tester import Compiles, Exports, features, golden, noise, relative
from torch.utils.flop_counter import FlopCounterMode

from gcpzoo.errors import ZooError
from gcpzoo.functional import parametric_vector
from gcpzoo.heads import create_head


class SmsoTester(HeadTester):
    head = "smso"
    args: ClassVar = {"directions": 7}


class TestSmso(Compiles, Exports, SmsoTester):
    pass


class TestSmsoLinear(SmsoTester):
    args: ClassVar = {"directions": 7, "square_root": False}


class TestSmsoConvolution(Compiles, Exports, SmsoTester):
    args: ClassVar = {"directions": 7, "form": "convolution"}


class TestSmsoGroups(SmsoTester):
    args: ClassVar = {"directions": 7, "cov_groups": 2}


@pytest.mark.parametrize(
    ("form", "case"),
    [
        pytest.param("covariance" if p.id.startswith("pv") else "convolution", *p.values, id=p.id)
        for p in golden("heads2/smso")
    ],
)
def test_values_and_gradients_before_the_root_are_the_authors(form: str, case: Case) -> None:
    d, p = case["param/kernel"].shape
    head = create_head("smso", in_features=d, directions=p, square_root=False, form=form)
    load_released(head, case)
    check_case(head, case)


def test_it_starts_as_the_paper_says() -> None:
    head = create_head("smso", in_features=64)
    assert head.out_features == head.directions == 2048
    assert (head.gamma == 1).all()
    assert (head.beta == 0).all()
    bound = (6 / (64 + 2048)) ** 0.5  # Glorot, uniform
    assert 0.99 * bound < head.directions_weight.abs().max() <= bound
    assert "directions_bias" not in head.state_dict()


def test_the_root_is_signed_and_flat_at_zero() -> None:
    head = create_head("smso", in_features=2, directions=3)
    with torch.no_grad():
        head.directions_weight.zero_()
        head.beta.copy_(torch.tensor([2.0, -8.0, 0.0]))
    x = torch.ones(1, 2, 3, 3, requires_grad=True)
    out = head(x)
    torch.testing.assert_close(out, torch.tensor([[2.0, -4.0, 0.0]]))
    out.sum().backward()
    assert x.grad.isfinite().all()
    assert head.beta.grad.isfinite().all()


def test_it_is_the_diagonal_of_the_unbiased_covariance_turned() -> None:
    x, w = features(2, 5, 3, 4, dtype=torch.float64).flatten(2), noise(5, 9, dtype=torch.float64)
    expected = torch.stack([torch.diagonal(w.mT @ torch.cov(s) @ w) for s in x])
    assert relative(parametric_vector(x, w), expected) < 1e-12


def test_one_position_left_by_a_mask_gives_what_one_position_gives() -> None:
    x, w = noise(1, 5, 4), noise(5, 9)
    assert (parametric_vector(x[..., :1], w) == 0).all()
    masked = parametric_vector(x, w, weights=torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert masked.abs().max() < 1e-6


def test_weights_that_sum_to_one_do_not_divide_by_next_to_nothing() -> None:
    x, w = noise(1, 5, 8), noise(5, 9)
    soft = noise(1, 8, seed=3).softmax(1)
    assert parametric_vector(x, w, weights=soft * 1.000001).max() < 3 * parametric_vector(x, w).max()


def test_no_matrix_of_channels_by_channels_is_formed() -> None:
    x, w = noise(2, 256, 4), noise(256, 3)
    with FlopCounterMode(display=False) as counter:
        parametric_vector(x, w)
    assert counter.get_total_flops() == 2 * 2 * 256 * 4 * 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"directions": 0}, "directions must be at least 1, got 0"),
        ({"form": "gsp"}, "form must be 'covariance' or 'convolution', got 'gsp'"),
        ({"square_root": "no"}, "square_root must be True or False, got 'no'"),
    ],
)
def test_mistakes_are_named(args: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        create_head("smso", in_features=8, **args)
