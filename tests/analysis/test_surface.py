"""The loss as a function of weights and activations: right values, and a network that stays as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gcpzoo.analysis.measurements.surface import Surface, activation_surface, move, norm, stem, weight_surface
from gcpzoo.errors import ZooError
from gcpzoo.models import create_model


def network(head: str = "gap") -> nn.Module:
    torch.manual_seed(0)
    model = create_model("resnet18", head, 3, dim=4 if head != "gap" else None, until="layer1")
    model.backbone.bn1.eval()  # modes that are not all alike
    return model


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, 16, 16, generator=generator)
    return [(x[:3], torch.tensor([0, 1, 2])), (x[3:], torch.tensor([1, 1]))]


def everything(model: nn.Module) -> list[object]:
    """All that a probe could leave changed."""
    tensors = [t.detach().clone() for t in (*model.parameters(), *model.buffers())]
    modes = [(m.training, len(m._forward_hooks)) for m in model.modules()]
    flags = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    return [*tensors, modes, flags, torch.get_rng_state()]


def assert_same(before: list[object], after: list[object]) -> None:
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_the_loss_and_its_gradient_are_the_networks_own_over_batches_of_any_size() -> None:
    model = network("isqrt")
    surface = weight_surface(model, batches())
    loss, gradient = surface.gradient(surface.origin)
    x, y = (torch.cat(parts) for parts in zip(*batches()))
    expected = cross_entropy(model.eval()(x), y)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert surface.loss(surface.origin) == pytest.approx(loss, rel=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(gradient[name], p.grad, atol=1e-5, rtol=1e-3)


def test_the_weights_of_one_part_vary_and_the_others_stay() -> None:
    model = network()
    surface = weight_surface(model, batches(), "classifier")
    assert set(surface.origin) == {"classifier.weight", "classifier.bias"}
    zero = {name: torch.zeros_like(t) for name, t in surface.origin.items()}
    assert surface.loss(zero) == pytest.approx(torch.tensor(3.0).log().item())


def test_activations_take_the_place_of_what_the_module_gives() -> None:
    model = network().eval()
    surface = activation_surface(model, batches(), "backbone.layer1")
    loss, gradient = surface.gradient(surface.origin)
    x, y = (torch.cat(parts) for parts in zip(*batches()))
    f = model.forward_features(x).detach().requires_grad_()
    expected = cross_entropy(model.forward_head(f), y)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(torch.cat(list(gradient.values())), f.grad, atol=1e-7, rtol=1e-4)


def test_batch_norm_takes_the_statistics_of_the_batch_where_asked_for() -> None:
    model = network()
    x, y = batches()[0]
    asked = weight_surface(model, [(x, y)], batch_statistics=True)
    assert asked.loss(asked.origin) != pytest.approx(weight_surface(model, [(x, y)]).loss(asked.origin), rel=1e-3)
    assert asked.loss(asked.origin) == pytest.approx(cross_entropy(model.train()(x), y).item(), rel=1e-5)


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("build", [weight_surface, activation_surface])
def test_the_network_and_the_random_state_stay_as_they_were(build: Callable[..., Surface], statistics: bool) -> None:
    model = network("dropcov")
    next(model.parameters()).requires_grad_(False)
    before = everything(model)
    surface = build(model, batches(), batch_statistics=statistics)
    _, g = surface.gradient(surface.origin)
    surface.gradient(move(surface.origin, g, -0.1))
    assert_same(before, everything(model))


@pytest.mark.parametrize("build", [weight_surface, activation_surface])
def test_the_network_stays_as_it_was_where_the_computation_fails(build: Callable[..., Surface]) -> None:
    model = network()
    surface = build(model, batches())
    before = everything(model)
    with pytest.raises(RuntimeError):
        surface.gradient({name: t[:, :1] if t.ndim > 3 else t for name, t in surface.origin.items()})
    assert_same(before, everything(model))


def test_a_network_in_half_precision_is_computed_in_the_precision_asked_for() -> None:
    surface = weight_surface(network().to(torch.bfloat16), batches(), dtype=torch.float64)
    _, gradient = surface.gradient(surface.origin)
    assert {t.dtype for t in (*surface.origin.values(), *gradient.values())} == {torch.float64}


def test_second_derivatives_sum_over_batches_and_are_zero_where_the_loss_is_linear() -> None:
    x = {"x": torch.tensor([1.0, 2.0])}
    parts = [lambda p: (p["x"] ** 3).sum(), lambda p: 5 * p["x"].sum(), lambda p: torch.tensor(1.0)]
    product = Surface(x, parts).hessian_product(x, {"x": torch.tensor([1.0, 0.5])})
    assert product["x"].tolist() == [6.0, 6.0]


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [("resnet18", "backbone.maxpool"), ("mobilenet_v2", "backbone.features.0"), ("vgg11", "backbone.features.0")],
)
def test_the_stem_is_what_comes_before_the_stages(backbone: str, expected: str) -> None:
    with torch.device("meta"):
        model = create_model(backbone, "gap", 2)
    assert stem(model) == expected


def test_what_cannot_vary_is_refused() -> None:
    model = network()
    with pytest.raises(ZooError, match=r"unknown module 'backbone.layer9'"):
        weight_surface(model, batches(), "backbone.layer9")
    with pytest.raises(ZooError, match=r"the module 'backbone.relu' has no weights"):
        weight_surface(model, batches(), "backbone.relu")
    with pytest.raises(ZooError, match=r"'backbone.layer1.0.relu' must run once"):
        activation_surface(model, batches(), "backbone.layer1.0.relu")
    for build in (weight_surface, activation_surface):
        with pytest.raises(ZooError, match="needs images, got none"):
            build(model, [])


def test_norms_are_of_all_tensors_as_one_vector() -> None:
    assert norm({"a": torch.tensor([[2.0, 3.0]]), "b": torch.tensor(6.0)}) == pytest.approx(7.0)
