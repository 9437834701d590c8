"""The base test that every head and every block goes through, and what it needs."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gcpzoo.hub.convert.common import rename, renames

GOLDEN = Path(__file__).parent / "files" / "golden"
HALF = (torch.float16, torch.bfloat16)
torch.set_num_threads(1)


def relative(a: Tensor, b: Tensor) -> float:
    """‖a - b‖ / ‖b‖."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


def golden(name: str) -> list:
    """The cases of a file of the authors' values, as parameters: dicts of tensors."""
    cases: dict[str, dict[str, Tensor]] = {}
    for key, value in load_file(GOLDEN / f"{name}.safetensors").items():
        tag, field = key.split("/", 1)
        cases.setdefault(tag, {})[field] = value
    return [pytest.param(case, id=tag) for tag, case in cases.items()]


def our_name(module: nn.Module, theirs: str) -> str:
    """The name of a parameter or buffer of ``module`` by that in the authors' code."""
    return next(iter(rename({theirs: torch.empty(0)}, renames(module.RELEASED_NAMES))))


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same every time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def features(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Correlated features after a ReLU, as networks make them."""
    g = torch.Generator().manual_seed(seed)
    c = shape[1]
    mix = torch.randn(c, c, generator=g, dtype=torch.float64) / c**0.5 + torch.eye(c, dtype=torch.float64)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    return torch.einsum("ij,bjhw->bihw", mix, x).add(0.3).relu().to(dtype)


def degenerate(kind: str, c: int) -> Tensor:
    x = features(2, c, 4, 4)
    return {
        "zero": lambda: torch.zeros_like(x),
        "constant": lambda: torch.ones_like(x) * torch.arange(1.0, c + 1)[:, None, None],
        "duplicated channels": lambda: x[:, [0] * c],
        "rank one": lambda: x[:, :1] * torch.arange(1.0, c + 1)[:, None, None],
        "one sample zero": lambda: x * torch.tensor([0.0, 1.0])[:, None, None, None],
        "entries of 1e4": lambda: x * 1e4,
        "entries of 1e-6": lambda: x * 1e-6,
    }[kind]()


DEGENERATE = ["zero", "constant", "duplicated channels", "rank one", "one sample zero", "entries of 1e4", "entries of 1e-6"]  # fmt: skip # noqa: E501


class ModuleTester:
    """Subclasses say how the module is made and where it differs.

    Attributes:
        channels: C of the inputs.
        gradcheck_sizes: maps on which the gradient is compared with differences; the second has rank 3.
        other_gradient: why the gradient differs from the derivative by design; the test then demands that it does.
        half_tolerance: relative error of a float16 and of a bfloat16 input against the same numbers in float32.
    """

    channels = 6
    gradcheck_sizes = ((3, 5), (2, 2))
    other_gradient: str | None = None
    half_tolerance = (1e-6, 1e-6)

    def make(self) -> nn.Module:
        raise NotImplementedError

    def output_shape(self, module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
        raise NotImplementedError

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    @pytest.mark.parametrize("size", [(2, 7, 7), (1, 1, 1), (2, 3, 5)], ids=str)
    def test_gives_finite_values_of_the_promised_shape(self, size: tuple[int, int, int], training: bool) -> None:
        shape = (size[0], self.channels, *size[1:])
        module = self.make().train(training)
        out = module(features(*shape))
        assert out.shape == self.output_shape(module, shape)
        assert out.isfinite().all()

    def test_gradient_is_the_derivative(self) -> None:
        module = self.make().double().eval()
        for size in self.gradcheck_sizes:
            x = features(2, self.channels, *size, dtype=torch.float64) + 0.1  # no zeros, where roots have kinks
            x.requires_grad_()
            right = torch.autograd.gradcheck(module, x, rtol=1e-4, atol=1e-5, raise_exception=not self.other_gradient)
            assert right == (self.other_gradient is None), self.other_gradient

    def test_samples_do_not_depend_on_their_neighbours(self) -> None:
        module = self.make().double().eval()
        x = features(3, self.channels, 4, 5, dtype=torch.float64).requires_grad_()
        out = module(x)
        weight = noise(*out.shape, dtype=out.dtype, seed=1)
        (grad,) = torch.autograd.grad((out * weight).sum(), x)
        for i in range(3):
            alone = x[i : i + 1].detach().requires_grad_()
            value = module(alone)
            (g,) = torch.autograd.grad((value * weight[i : i + 1]).sum(), alone)
            # Batched and single linear algebra round differently; float64 leaves 1e-12 at these condition numbers.
            assert relative(value, out[i : i + 1]) < 1e-9
            assert relative(g, grad[i : i + 1]) < 1e-9

    @pytest.mark.parametrize("dtype", HALF, ids=str)
    def test_half_precision_is_close_to_float32(self, dtype: torch.dtype) -> None:
        module = self.make().eval()
        x = features(2, self.channels, 7, 7).to(dtype)
        with torch.autocast("cpu", dtype):
            half = module(x)
        assert half.isfinite().all()
        assert relative(half, module(x.float())) < self.half_tolerance[HALF.index(dtype)]

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    @pytest.mark.parametrize("kind", DEGENERATE)
    def test_degenerate_maps_give_finite_values_and_gradients(self, kind: str, training: bool) -> None:
        x = degenerate(kind, self.channels).requires_grad_()
        module = self.make().train(training)
        out = module(x)
        out.sum().backward()
        assert out.isfinite().all()
        assert x.grad.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())

    def test_state_dict_makes_the_same_module(self) -> None:
        first, second = self.make().eval(), self.make().eval()
        for value in first.state_dict().values():
            if value.dtype.is_floating_point:
                value.add_(0.1)
        second.load_state_dict(first.state_dict(), strict=True)
        x = features(2, self.channels, 4, 5)
        assert torch.equal(first(x), second(x))

    def test_deep_copy_computes_the_same_on_its_own(self) -> None:
        module = self.make().eval()
        twin = copy.deepcopy(module)
        x = features(2, self.channels, 4, 5)
        assert torch.equal(module(x), twin(x))
        pairs = zip(module.state_dict().values(), twin.state_dict().values(), strict=True)
        assert all(a.data_ptr() != b.data_ptr() for a, b in pairs)


class NeedsTwoValues:
    """Before :class:`ModuleTester`, for modules with batch statistics, which one value a channel does not have."""

    def test_gives_finite_values_of_the_promised_shape(self, size: tuple[int, int, int], training: bool) -> None:
        if training and size == (1, 1, 1):
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                self.make().train()(features(1, self.channels, 1, 1))
        else:
            super().test_gives_finite_values_of_the_promised_shape(size, training)

    test_gives_finite_values_of_the_promised_shape.pytestmark = (
        ModuleTester.test_gives_finite_values_of_the_promised_shape.pytestmark
    )


class Compiles:
    """Beside :class:`ModuleTester`, for modules without operators that Inductor lacks (eigendecompositions)."""

    def test_compiles_without_a_graph_break(self) -> None:
        x = features(2, self.channels, 4, 5)
        module = self.make().eval()
        torch.compiler.reset()
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        out = torch.compile(module, backend="aot_eager", fullgraph=True)(a)
        expected = module(b)
        out.sum().backward()
        expected.sum().backward()
        assert relative(out, expected) < 1e-5  # float32, another order of the same operations
        assert relative(a.grad, b.grad) < 1e-4


class Exports:
    """Beside :class:`ModuleTester`, for modules whose operators ONNX has."""

    def test_onnxruntime_computes_the_exported_module(self) -> None:
        import onnxruntime

        x = features(2, self.channels, 4, 5)
        module = self.make().eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
        file = io.BytesIO()
        program.save(file)
        session = onnxruntime.InferenceSession(file.getvalue())
        (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert relative(torch.from_numpy(out), module(x)) < 1e-5  # float32, another library
