"""Attribution: what the map and the pairs sum to, which heads have them, and what is left as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gcpzoo.analysis.explanations.attribution import feature_attribution, grad_cam, second_order
from gcpzoo.errors import ZooError
from gcpzoo.heads import list_heads
from gcpzoo.models import GCPNet, create_model

WITHOUT = {"gap", "mgcrp", "moment_probing", "gamma_democratic", "svd_topn"}
"""Heads that are no function of a covariance, or not one with a gradient."""


def network(head: str, dim: int | None = 4, **kwargs: object) -> GCPNet:
    torch.manual_seed(0)
    return create_model("resnet18", head, 3, dim=dim, until="layer1", **kwargs).eval()  # type: ignore[arg-type]


def image(size: int = 32) -> Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("head", list_heads())
def test_every_head_is_attributed_or_refused(head: str) -> None:
    model = network(head)
    if head in WITHOUT:
        with pytest.raises(ZooError, match=r"use feature_attribution"):
            second_order(model, image(), 1)
        assert feature_attribution(model, image(), 1).shape == (8, 8)
        return
    view = second_order(model, image(), 1)
    assert view.logit == pytest.approx(model(image()[None])[0, 1].item(), rel=1e-3, abs=1e-4)
    torch.testing.assert_close(view.map.sum(), view.contributions.sum())
    torch.testing.assert_close(view.contributions, view.contributions.mT)
    by_position = torch.einsum("ihw,ij,jhw->hw", view.features, view.gradient, view.features) / 64
    torch.testing.assert_close(by_position, view.map, atol=1e-9, rtol=1e-5)
    assert (view.first_order is not None) == (head == "gaussian")


@pytest.mark.parametrize(("head", "degree"), [("isqrt", 0.5), ("mpn_cov", 0.5), ("svd_pade", 0.5), ("dropcov", 1.0)])
def test_the_sum_is_the_logit_without_bias_times_the_degree_of_the_head(head: str, degree: float) -> None:
    model = network(head)
    view = second_order(model, image(), 1)
    bias = model.classifier.bias[1].item()  # type: ignore[union-attr,index,arg-type]
    assert float(view.map.sum()) == pytest.approx(degree * (view.logit - bias), rel=1e-4)


def test_the_gradient_of_the_plain_covariance_is_the_classifier() -> None:
    model = network("dropcov")
    weight = model.classifier.weight[2].double()  # type: ignore[union-attr,index,operator]
    expected = torch.zeros(4, 4).double()
    expected[tuple(torch.triu_indices(4, 4))] = weight / 2
    found = second_order(model, image(), 2).gradient
    torch.testing.assert_close(found, (expected + expected.mT), atol=1e-6, rtol=1e-4)


def test_with_fewer_positions_than_channels_the_covariance_and_its_gradient_still_fit() -> None:
    model, x = network("mpn_cov", dim=None), image(16)  # 64 channels, 16 positions
    view = second_order(model, x, 0)
    half = (view.logit - model.classifier.bias[0].item()) / 2  # type: ignore[union-attr,index,arg-type]
    assert float(view.contributions.sum()) == pytest.approx(half, rel=1e-4)
    null = torch.linalg.svd(view.features.flatten(1), full_matrices=True)[0][:, 16:]
    assert float((null.mT @ view.gradient @ null).abs().max()) < 1e-9 * float(view.gradient.abs().max())


def test_pairs_are_ranked_and_their_maps_add_up_to_the_map() -> None:
    view = second_order(network("isqrt"), image(), 1)
    speaking, against = view.pairs(10), view.pairs(10, against=True)
    assert len(speaking) + len(against) == 10  # 4·5/2 pairs, on one side or the other
    values = [p.contribution for p in speaking]
    assert values == sorted(values, reverse=True)
    assert all(p.contribution < 0 for p in against)
    total = sum(p.contribution for p in speaking + against)
    assert total == pytest.approx(float(view.map.sum()), rel=1e-6)
    torch.testing.assert_close(sum(view.pair_map(p.i, p.j) for p in speaking + against), view.map)
    first = speaking[0]
    assert float(view.pair_map(first.i, first.j).sum()) == pytest.approx(first.contribution, rel=1e-6)
    assert abs(first.correlation) <= 1 + 1e-9


def test_groups_of_channels_only_pair_within_a_group() -> None:
    view = second_order(network("mpn_cov", head_args={"cov_groups": 2}), image(), 1)
    assert view.contributions[:2, 2:].abs().max() == 0
    assert all(p.i // 2 == p.j // 2 for p in view.pairs(10))
    torch.testing.assert_close(view.map.sum(), view.contributions.sum())


@pytest.mark.parametrize("fusion", ["sum", "mean", "concat"])
def test_a_first_order_branch_is_kept_apart(fusion: str) -> None:
    model = network("dropcov", fusion=fusion)
    view = second_order(model, image(), 1)
    with torch.no_grad():
        zero = model.forward_head(torch.zeros_like(model.forward_features(image()[None])))[0, 1]
        reduced = model.head.reduction(torch.zeros(1, 64, 1, 1))
    assert reduced.shape[1] == 4
    assert view.first_order is not None
    total = float(view.map.sum() + view.first_order.sum())
    assert total == pytest.approx(view.logit - float(zero), rel=1e-3)


@pytest.mark.parametrize("fusion", [None, "sum", "all"])
def test_tokens_are_laid_out_as_the_image_is(fusion: str | None) -> None:
    torch.manual_seed(0)
    model = create_model(
        "timm:vit_tiny_patch16_224", "isqrt", 3, dim=4, fusion=fusion, backbone_args={"img_size": 64, "depth": 1}
    ).eval()
    x = image(64)
    assert second_order(model, x, 1).map.shape == (4, 4)
    assert feature_attribution(model, x, 1).shape == (4, 4)
    assert grad_cam(model, x, 1).shape == (64, 64)


def test_the_network_keeps_its_mode_its_weights_and_its_gradients() -> None:
    model = network("isqrt").train()
    model.backbone.bn1.eval()
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)  # type: ignore[union-attr,arg-type]
    modes = {name: module.training for name, module in model.named_modules()}
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for attribute in (second_order, feature_attribution, grad_cam):
        attribute(model, image(), 1)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(v, state[k]) and v.dtype == state[k].dtype for k, v in model.state_dict().items())
    grads = {name for name, p in model.named_parameters() if p.grad is not None}
    assert grads == {"classifier.weight"}
    assert bool((model.classifier.weight.grad == 1).all())  # type: ignore[union-attr]
    assert all(p.requires_grad for p in model.parameters())


def test_grad_cam_is_the_weighted_sum_of_the_features() -> None:
    model, x = network("gap"), image()
    f = model.forward_features(x[None]).detach()
    f.requires_grad_()
    (gradient,) = torch.autograd.grad(model.forward_head(f)[0, 1], f)
    expected = (gradient.mean((2, 3), keepdim=True) * f).sum(1).relu()[0].detach()
    marked = torch.nn.functional.adaptive_avg_pool2d(grad_cam(model, x, 1)[None], 8)[0]
    assert float(torch.corrcoef(torch.stack([marked.flatten(), expected.flatten()]))[0, 1]) > 0.95


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    model = network("isqrt")
    for attribute in (second_order, feature_attribution, grad_cam):
        with pytest.raises(ZooError, match="label must be between 0 and 2"):
            attribute(model, image(), label)


def test_clips_are_refused() -> None:
    with pytest.raises(ZooError, match="reads clips of 2 frames"):
        second_order(network("tcp", head_args={"frames": 2, "attention": False}), image(), 1)
