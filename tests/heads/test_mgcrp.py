"""Dropout of tokens and entries in cross-covariance pooling, as DropCov's transformers train with it."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from head_tester import HeadTester
from module_tester import Compiles, Exports, features, golden, noise, relative
from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.functional import cross_covariance, multi_head_cross_covariance
from gcpzoo.heads import create_head

Case = dict[str, Tensor]


class TestMgcrpOfDropCov(Compiles, Exports, HeadTester):
    head = "mgcrp"
    args: ClassVar = {"heads": 2, "head_dim": 3, "normalization": None, "token_dropout": 0.2, "dropout": 0.5}
    half_tolerance = (3e-3, 2e-2)  # the projection runs in half precision


def released(case: Case, x: Tensor, params: Case, training: bool) -> tuple[Tensor, Tensor]:
    """Pooled vector and logits of the released classifier, tokens with the class token first."""
    mask = feature_mask = None
    dim = params["representation.wr.weight"].shape[0] // 3
    heads = dim**2 // case["mgcrp"].shape[1]
    if training:
        mask, feature_mask = case["token_mask"].reshape(len(x), heads, -1), case["feature_mask"]
    pairs = (x[:, 1:] @ params["representation.wr.weight"][: 2 * dim].mT).mT
    v = multi_head_cross_covariance(pairs, heads, token_mask=mask).flatten(1)
    v = v if feature_mask is None else v * feature_mask
    visual = F.linear(v, params["visual_fc.weight"], params["visual_fc.bias"])
    return v, visual + F.linear(x[:, 0], params["cls_fc.weight"], params["cls_fc.bias"])


@pytest.mark.parametrize("case", golden("heads2/dropcov_vit"))
def test_values_and_gradients_are_the_authors_in_training_and_evaluation(case: Case) -> None:
    x = case["x"].clone().requires_grad_()
    params = {k.removeprefix("param/"): v.clone().requires_grad_() for k, v in case.items() if k.startswith("param/")}
    v, out = released(case, x, params, training="token_mask" in case)
    assert relative(v, case["mgcrp"]) < 1e-5  # float32
    assert relative(out, case["out"]) < 1e-5
    (out * case["cotangent"]).sum().backward()
    assert relative(x.grad, case["grad"]) < 1e-4
    for name, value in params.items():
        assert relative(value.grad, case[f"grad_param/{name}"]) < 1e-4, name


@pytest.mark.parametrize("case", [p for p in golden("heads2/dropcov_vit") if p.id.startswith("eval")])
def test_evaluation_of_the_head_has_no_dropout(case: Case) -> None:
    weight = case["param/representation.wr.weight"]
    heads = (len(weight) // 3) ** 2 // case["mgcrp"].shape[1]
    head = create_head(
        "mgcrp",
        in_features=weight.shape[1],
        heads=heads,
        head_dim=len(weight) // 3 // heads,
        normalization=None,
        token_dropout=0.2,
        dropout=0.5,
    ).eval()
    head.load_state_dict({"projection.weight": weight})
    assert relative(head(case["x"][:, 1:], tokens=True), case["mgcrp"]) < 1e-5  # float32


def test_a_mask_drops_the_token_in_both_projections_before_the_mean() -> None:
    pairs, mask = noise(2, 12, 5, dtype=torch.float64), torch.tensor([1.25, 0, 1.25, 1.25, 0]).expand(2, 2, 5)
    q, k = (pairs * mask[0, 0]).reshape(2, 2, 2, 3, 5).unbind(1)
    out = multi_head_cross_covariance(pairs, 2, token_mask=mask)
    assert relative(out, cross_covariance(q, k)) < 1e-12  # float64
    others = multi_head_cross_covariance(pairs[..., mask[0, 0] > 0] * 1.25, 2)
    assert relative(out, others) > 0.1  # a dropped token still counts, as zeros


def test_a_masked_position_stays_out_whether_it_is_dropped_or_not() -> None:
    pairs, mask = noise(1, 12, 6, dtype=torch.float64), F.dropout(torch.ones(1, 2, 6), 0.5)
    mask[..., 2], mask[..., 4] = 0, 2
    weights = torch.tensor([[1.0, 2.0, 0.0, 1.0, 0.0, 1.0]])
    chosen = [0, 1, 1, 3, 5]
    expected = multi_head_cross_covariance(pairs[..., chosen], 2, token_mask=mask[..., chosen])
    pairs[..., [2, 4]] = torch.nan
    assert relative(multi_head_cross_covariance(pairs, 2, "scalar", mask, weights), expected) < 1e-12  # float64


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ZooError, match=r"token_mask must be \(B, H, N\) = \(2, 2, 5\), got shape \(2, 1, 5\)"):
        multi_head_cross_covariance(torch.ones(2, 12, 5), 2, token_mask=torch.ones(2, 1, 5))
    with pytest.raises(ZooError, match=r"pairs must be \(B, 10·k, N\) for 5 heads, got shape \(2, 12, 5\)"):
        multi_head_cross_covariance(torch.ones(2, 12, 5), 5)


class TestDraws:
    """What training draws, from its effect on the output."""

    def test_each_sample_head_and_token_is_drawn_by_itself_at_the_rate(self) -> None:
        head = create_head("mgcrp", in_features=2, heads=5, head_dim=1, normalization=None, token_dropout=0.2).train()
        torch.manual_seed(0)
        mask = head._token_mask(torch.ones(40, 10, 100))
        assert mask.shape == (40, 5, 100)
        assert set(mask.unique().tolist()) == {0, 1.25}
        assert abs(float((mask == 0).float().mean()) - 0.2) < 0.013  # 4.6 standard errors of 20000 draws
        flat = mask.reshape(200, 100)
        assert len(flat.unique(dim=0)) == 200

    def test_training_is_the_functional_with_the_mask_drawn(self) -> None:
        args = {"heads": 2, "head_dim": 3, "normalization": None, "token_dropout": 0.3}
        head = create_head("mgcrp", in_features=8, **args).train()
        x = features(3, 8, 4, 4)
        torch.manual_seed(1)
        out = head(x)
        torch.manual_seed(1)
        pairs = head.projection.weight @ x.flatten(2)
        expected = multi_head_cross_covariance(pairs, 2, token_mask=F.dropout(torch.ones(3, 2, 16), 0.3))
        assert relative(out, expected.flatten(1)) < 1e-5  # float32
        assert relative(out, head.eval()(x)) > 0.1

    def test_entries_of_the_vector_are_dropped_and_the_others_scaled(self) -> None:
        head = create_head("mgcrp", in_features=8, normalization=None, dropout=0.5)
        x = features(4, 8, 4, 4)
        torch.manual_seed(2)
        out, whole = head.train()(x), head.eval()(x)
        kept = out != 0
        assert torch.allclose(out[kept], 2 * whole[kept])
        assert abs(float(kept.float().mean()) - 0.5) < 0.02  # 4.7 standard errors of 13824 draws

    def test_without_rates_training_is_evaluation_and_draws_nothing(self) -> None:
        head = create_head("mgcrp", in_features=8)
        x, before = features(2, 8, 4, 4), torch.get_rng_state()
        assert torch.equal(head.train()(x), head.eval()(x))
        assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["token_dropout", "dropout"])
@pytest.mark.parametrize("value", [-0.1, 1.5, True, "0.5", float("nan")])
def test_a_rate_that_is_no_probability_is_refused(name: str, value: object) -> None:
    with pytest.raises(ZooError, match=f"^{name} must be a number between 0 and 1, got"):
        create_head("mgcrp", in_features=8, **{name: value})
