"""The registry, the arguments of heads, and the exchange of the root at run time."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

import pytest
import torch
from module_tester import features, relative

from gcpzoo.errors import ZooError
from gcpzoo.functional import ROOTS, covariance, square_root
from gcpzoo.heads import base, create_head, head_arguments, list_heads
from gcpzoo.heads.registry import head_class

NAMES = [
    "asinhe",
    "bcnn",
    "bdc",
    "cbp",
    "cho_tmlr",
    "dropcov",
    "gamma",
    "gamma_democratic",
    "gap",
    "gaussian",
    "improved_bcnn",
    "invcov",
    "isice",
    "isqrt",
    "maxexp",
    "maxexp_f",
    "mgcrp",
    "mpa_lya",
    "mpn_cov",
    "mtp_lya",
    "pow_emlr",
    "pow_tmlr",
    "scale_pow_emlr",
    "seb",
    "sigme",
    "smso",
    "svd_newton",
    "svd_original",
    "svd_pade",
    "svd_power_iteration",
    "svd_taylor",
    "svd_topn",
    "svd_trunc",
]


def test_all_published_heads_are_registered() -> None:
    assert list_heads() == NAMES


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("isqr", {}, "unknown head 'isqr': did you mean isqrt"),
        ("isqrt", {"iteration": 3}, "did you mean iterations"),
        ("isqrt", {"iterations": 0}, "iterations must be at least 1, got 0"),
        ("isqrt", {"iterations": 2.5}, "iterations must be a whole number, got 2.5"),
        ("isqrt", {"root": 3}, "unknown root '3'"),
        ("isqrt", {"cov_groups": 0}, "cov_groups must be at least 1, got 0"),
        ("mpn_cov", {"alpha": "half"}, "alpha must be positive, got 'half'"),
        ("mpn_cov", {"alpha": float("nan")}, "alpha must be positive, got nan"),
        ("mgcrp", {"alpha": -1.0}, "alpha must be positive, got -1.0"),
        ("isqrt", {"root": "svd_pad"}, "did you mean svd_pade"),
        ("isqrt", {"dim": 0}, "dim must be a positive number"),
        ("isqrt", {"dim": 6, "groups": 4}, "groups must divide the reduction's 8 and 6 channels, got 4"),
        ("isqrt", {"cov_groups": 3}, "cov_groups must divide the 8 channels, got 3"),
        ("isqrt", {"dim": 4, "reduction": "relu7"}, "did you mean relu"),
        ("mpn_cov", {"alpha": 0}, "alpha must be positive"),
        ("mpn_cov", {"norm": "fro"}, "norm must be None, 'l2' or 'frobenius', got 'fro'"),
        ("mpn_cov", {"norm": "l2", "logarithm": True}, "stands alone"),
        ("svd_pade", {"backward": "pade"}, "'published' or 'exact'"),
        ("seb", {"backward": "orginal"}, "did you mean original"),
        ("seb", {"parity": "paper"}, "'released'"),
        ("seb", {"parity": "released", "backward": "exact"}, "goes with a published"),
        ("dropcov", {"parity": "paper"}, "'released'"),
        ("dropcov", {"kernel_size": 4}, "kernel_size must be odd"),
        ("dropcov", {"cov_groups": 8}, "at least two channels"),
        ("cbp", {"sketch_dim": 0}, "sketch_dim must be at least 1"),
        ("cho_tmlr", {"eps": 0}, "eps must be positive"),
        ("mgcrp", {"heads": 0}, "at least 1"),
        ("mgcrp", {"normalization": "isqrt"}, "'svpn' or None"),
        ("mgcrp", {"mean": "all"}, "'scalar' or 'channel'"),
    ],
)
def test_mistakes_are_named_with_their_remedy(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        create_head(name, in_features=8, **args)


@pytest.mark.parametrize(
    ("in_features", "message"),
    [
        (0, "in_features must be at least 1, got 0"),
        (-1, "in_features must be at least 1, got -1"),
        (8.0, "in_features must be a whole number, got 8.0"),
    ],
)
@pytest.mark.parametrize("name", ["gap", "isqrt", "mgcrp"])
def test_a_number_of_channels_that_cannot_be_is_refused(name: str, in_features: Any, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        create_head(name, in_features=in_features)


def test_a_thousand_iterations_are_the_most() -> None:
    assert create_head("isqrt", in_features=8, iterations=1000).iterations == 1000
    with pytest.raises(ZooError, match="iterations must be at most 1000, got 1001"):
        create_head("isqrt", in_features=8, iterations=1001)


@pytest.mark.parametrize("name", list_heads())
def test_integer_features_are_refused(name: str) -> None:
    with pytest.raises(ZooError, match=f"{name} expects floating-point features, got torch.int64"):
        create_head(name, in_features=8)(torch.ones(2, 8, 4, 4, dtype=torch.int64))


@pytest.mark.parametrize("name", list_heads())
def test_an_empty_batch_gives_no_vectors(name: str) -> None:
    head = create_head(name, in_features=8)
    assert head(torch.ones(0, 8, 4, 4)).shape == (0, head.out_features)


def test_arguments_of_a_head_include_those_of_its_bases() -> None:
    known = head_arguments("svd_pade")
    assert known["backward"] == "published"
    assert known["cov_groups"] == 1


@pytest.mark.parametrize("root", sorted(set(ROOTS) - {"svd_topn"}))
def test_every_root_squared_is_near_the_covariance(root: str) -> None:
    x = features(2, 5, 8, 8, dtype=torch.float64)
    sigma = covariance(x)
    r = square_root(x, root, iterations=12)
    # What has a fixed degree is off by 1e-3, 2e-2 and 4e-3 at these condition numbers, all else is converged.
    assert relative(r @ r, sigma) < {"mpa_lya": 1e-2, "mtp_lya": 3e-2, "minimax": 1e-2}.get(root, 1e-6)


def test_top_n_root_keeps_the_eigenvalues_above_the_fiftieth() -> None:
    x = features(1, 52, 10, 10, dtype=torch.float64)
    w = torch.linalg.eigvalsh(square_root(x, "svd_topn")[0])
    assert (w > 1e-6).sum() == 2


def test_root_can_be_switched_and_back_at_run_time() -> None:
    x = features(2, 6, 4, 5)
    head = create_head("isqrt", in_features=6, iterations=5)
    before = head(x)
    keys = list(head.state_dict())
    head.switch_root("svd_pade")
    assert head.root == "svd_pade"
    assert list(head.state_dict()) == keys
    assert torch.equal(head(x), create_head("svd_pade", in_features=6)(x))
    assert torch.equal(copy.deepcopy(head)(x), head(x))
    head.switch_root("isqrt")
    assert torch.equal(head(x), before)
    with pytest.raises(ZooError, match="did you mean svd_taylor"):
        head.switch_root("svd_tailor")
    assert head.root == "isqrt"


def test_switched_head_is_rebuilt_from_its_arguments() -> None:
    x = features(2, 6, 4, 5)
    head = create_head("isqrt", in_features=6)
    head.switch_root("svd_taylor")
    again = create_head("isqrt", in_features=6, root=head.root)
    assert torch.equal(head(x), again(x))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("svd_")])
def test_exact_backward_is_the_gradient_of_mpn_cov(name: str) -> None:
    x = features(2, 6, 2, 2).requires_grad_()
    grads = []
    for head in (create_head(name, in_features=6, backward="exact"), create_head("mpn_cov", in_features=6)):
        grads += torch.autograd.grad(head(x).square().sum(), x)
    assert torch.equal(*grads)


def test_grouped_covariance_is_the_covariance_of_each_group() -> None:
    x = features(2, 8, 4, 5)
    grouped = create_head("isqrt", in_features=8, cov_groups=2)(x)
    one = create_head("isqrt", in_features=4)
    assert relative(grouped, torch.cat([one(x[:, :4]), one(x[:, 4:])], 1)) < 1e-6  # float32, batches of 4 and 2


def test_progressive_reduction_ends_at_its_last_dimension() -> None:
    head = create_head("isqrt", in_features=32, dim=[16, 8, 4])
    assert head.dim == 4
    assert [m.out_channels for m in head.reduction if hasattr(m, "out_channels")] == [16, 8, 4]


@pytest.mark.parametrize("name", sorted(set(list_heads()) - {"gap", "mgcrp"}))
def test_recomputing_heads_keep_their_features_only_and_give_the_same(name: str) -> None:
    kept: list[int] = []

    def pack(t: torch.Tensor) -> torch.Tensor:
        if t.numel():  # checkpoint's own placeholder is empty
            kept.append(t.untyped_storage().data_ptr())
        return t

    head = create_head(name, in_features=16, dim=8, reduction="linear")
    again = copy.deepcopy(head)
    again.recompute = True  # type: ignore[attr-defined]
    x = features(2, 16, 5, 5)
    results = []
    for each in (head, again):
        torch.manual_seed(0)  # dropcov draws
        y = x.clone().requires_grad_()
        out = each(y)
        (grad,) = torch.autograd.grad(out.sum(), y)
        results.append((out, grad))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    inner = x[:, :8].clone().requires_grad_()
    again.reduction = torch.nn.Identity()
    again.in_features = 8
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        again(inner)
    assert set(kept) <= {inner.untyped_storage().data_ptr()}


@pytest.mark.parametrize("autocast", [False, True])
def test_recomputing_gives_the_parameters_the_same_gradient(autocast: bool) -> None:
    head = create_head("isqrt", in_features=16, dim=8)
    again = copy.deepcopy(head)
    again.recompute = True  # type: ignore[attr-defined]
    x = features(2, 16, 5, 5)
    for each in (head, again):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            each(x).square().sum().backward()
    for a, b in zip(head.parameters(), again.parameters(), strict=True):
        assert a.grad is not None
        assert a.grad.abs().max() > 0
        assert torch.equal(a.grad, b.grad)


def test_without_gradients_nothing_is_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    head = create_head("isqrt", in_features=4)
    head.recompute = True  # type: ignore[attr-defined]
    monkeypatch.setattr(base, "checkpoint", None)
    with torch.no_grad():
        assert head(features(1, 4, 3, 3)).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_head_says_in_its_own_first_line_what_it_is_and_where_it_comes_from(name: str) -> None:
    doc = inspect.cleandoc(head_class(name).__dict__["__doc__"])
    first, rest = doc.split("\n", 1)
    assert re.fullmatch(r"[A-Zi][^:`\\]*(: [^:`\\]+)?\.", first), first  # plain text, one sentence
    assert rest.startswith("\n")
    (source,) = [p for p in doc.split("\n\n") if p.startswith("Source: ")]
    assert re.match(r'Source: [A-Z][\w .-]+, "[^"]+",\s[A-Za-z].*\b20\d\d\b|.*arXiv \d{4}\.\d{5}', source, re.DOTALL)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("side", [2, 5])
@pytest.mark.parametrize("name", sorted(set(list_heads()) - {"gap"}))
def test_a_sample_that_is_not_finite_leaves_the_others_alone(name: str, side: int, bad: float) -> None:
    head = create_head(name, in_features=16).eval()
    x = features(3, 16, side, side)
    expected = head(x)
    x[1, 0, 0, 0] = bad
    x.requires_grad_()
    out = head(x)
    (grad,) = torch.autograd.grad(out[[0, 2]].sum(), x)
    assert not out[1].isfinite().all()
    torch.testing.assert_close(out[[0, 2]], expected[[0, 2]])
    assert grad[[0, 2]].isfinite().all()


@pytest.mark.parametrize("name", ["isqrt", "mpn_cov", "svd_pade", "mpa_lya"])
def test_a_second_derivative_is_refused(name: str) -> None:
    x = features(2, 8, 3, 3).requires_grad_()
    loss = create_head(name, in_features=8)(x).sum() + x.pow(3).sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, x, create_graph=True)


@pytest.mark.parametrize("name", ["isqrt", "mpn_cov", "mpa_lya"])
def test_a_backward_pass_under_autocast_keeps_its_precision(name: str) -> None:
    head = create_head(name, in_features=8)
    grads = []
    for enabled in (False, True):
        x = features(2, 8, 3, 3).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            head(x).sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("side", [2, 5])
@pytest.mark.parametrize("scale", [1e-15, 1e-13, 1e12])
def test_the_root_scales_with_the_features(scale: float, side: int) -> None:
    x = features(2, 16, side, side)
    results = []
    for factor in (1.0, scale):
        y = (x * factor).requires_grad_()
        root = square_root(y.flatten(2), "isqrt")
        (grad,) = torch.autograd.grad(root.sum(), y)
        results.append((root / factor, grad))
    for small, expected in zip(results[1], results[0]):
        assert relative(small, expected) < 1e-5
