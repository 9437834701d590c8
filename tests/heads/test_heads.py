"""Every head through the base test, with what is its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from head_tester import HeadTester
from module_tester import Compiles, Exports, features, noise, relative
from torch import Tensor

from gcpzoo.errors import ZooError
from gcpzoo.functional import drop_channels, released_covariance
from gcpzoo.heads import create_head, list_heads


class TestGap(HeadTester):
    head = "gap"
    half_tolerance = (1e-3, 1e-2)  # the mean itself is taken in half precision


class TestBcnn(Compiles, Exports, HeadTester):
    head = "bcnn"


class TestImprovedBcnn(HeadTester):
    head = "improved_bcnn"


class TestImprovedBcnnNewtonSchulz(Compiles, Exports, HeadTester):
    head = "improved_bcnn"
    args: ClassVar = {"root": "isqrt"}


class TestCbp(Compiles, Exports, HeadTester):
    head = "cbp"
    args: ClassVar = {"sketch_dim": 64}

    def test_sketch_is_the_circular_convolution_at_every_position(self) -> None:
        x = features(2, self.channels, 3, 4, dtype=torch.float64)
        head = self.make().double()
        sketches = []
        for h, s in ((head.hash1, head.sign1), (head.hash2, head.sign2)):
            sketch = torch.zeros(2, 12, 64, dtype=torch.float64)
            sketches.append(torch.fft.fft(sketch.index_add(2, h, x.flatten(2).mT * s)))
        expected = torch.fft.ifft(sketches[0] * sketches[1]).real.sum(1)
        assert torch.allclose(head.normalize(x.flatten(2)), expected, atol=1e-12)  # rounding of the FFT

    def test_seed_decides_the_hashes(self) -> None:
        one, again, two = (create_head("cbp", in_features=32, seed=s) for s in (1, 1, 2))
        assert torch.equal(one.hash1, again.hash1)
        assert not torch.equal(one.hash1, two.hash1)


class TestMpnCov(HeadTester):
    head = "mpn_cov"


class TestMpnCovLogarithm(TestMpnCov):
    args: ClassVar = {"logarithm": True}


class TestMpnCovL2(TestMpnCov):
    args: ClassVar = {"norm": "l2", "alpha": 0.7}


class TestMpnCovFrobenius(TestMpnCov):
    args: ClassVar = {"norm": "frobenius"}


class TestISqrt(Compiles, Exports, HeadTester):
    head = "isqrt"


class TestISqrtGroups(HeadTester):
    head = "isqrt"
    args: ClassVar = {"cov_groups": 2, "iterations": 3}


class TestSvdOriginal(HeadTester):
    head = "svd_original"
    weights_tolerance = 1e-6
    gradcheck_sizes = ((3, 5),)  # the floor of 2.2e-16 under null eigenvalues is 1e-8 of noise in their roots


class TestSvdPade(TestSvdOriginal):
    head = "svd_pade"


class TestSvdPadeExact(HeadTester):
    head = "svd_pade"
    args: ClassVar = {"backward": "exact"}


class TestSvdTrunc(TestSvdOriginal):
    head = "svd_trunc"


class TestSvdTaylor(TestSvdOriginal):
    head = "svd_taylor"  # the cut series is exact enough at ratios of eigenvalues below 0.9


class TestSvdPowerIteration(TestSvdOriginal):
    head = "svd_power_iteration"
    other_gradient = "the series is cut"


class TestSvdNewton(TestSvdOriginal):
    head = "svd_newton"
    other_gradient = "the gradient of another function, by design"


class TestSvdTopN(TestSvdOriginal):
    head = "svd_topn"
    other_gradient = "the output jumps where eigenvalues are dropped"


class TestMpaLya(Compiles, HeadTester):
    head = "mpa_lya"
    other_gradient = "eight steps of the Lyapunov solver"


class TestMtpLya(Compiles, Exports, HeadTester):
    head = "mtp_lya"
    other_gradient = "eight steps of the Lyapunov solver"


class TestSeb(HeadTester):
    head = "seb"
    weights_tolerance = 1e-6
    gradcheck_sizes = TestSvdOriginal.gradcheck_sizes

    def test_released_form_is_the_formula_where_the_root_has_no_zero(self) -> None:
        x = features(2, self.channels, 4, 5)
        released = create_head("seb", in_features=self.channels, parity="released")
        assert relative(released(x), self.make()(x)) < 1e-6

    def test_released_form_is_nan_where_a_channel_is_silent(self) -> None:
        x = features(1, 2, 4, 5) * torch.tensor([1.0, 0.0])[:, None, None]
        assert create_head("seb", in_features=2)(x).isfinite().all()
        assert create_head("seb", in_features=2, parity="released")(x).isnan().any()


class TestSebExact(TestSeb):
    args: ClassVar = {"backward": "exact"}


class TestPowEmlr(HeadTester):
    head = "pow_emlr"


class TestScalePowEmlr(HeadTester):
    head = "scale_pow_emlr"


class TestPowTmlr(Compiles, Exports, HeadTester):
    head = "pow_tmlr"


class TestChoTmlr(HeadTester):
    head = "cho_tmlr"
    weights_tolerance = 1e-6
    gradcheck_sizes = ((3, 5),)  # differences of 1e-6 are no derivative beside a ridge of 1e-6

    def test_mean_that_breaks_the_released_covariance_is_pooled_all_the_same(self) -> None:
        x = features(1, 1, 14, 14) + 10 * torch.arange(6.0)[:, None, None]
        assert torch.linalg.eigvalsh(released_covariance(x)).min() < -1e-6
        assert self.make()(x).isfinite().all()


class TestDropCov(Compiles, Exports, HeadTester):
    head = "dropcov"

    def scale(self, parity: str | None) -> Tensor:
        """Ratio of the covariance's trace in training, without dropout, to that in evaluation."""
        x = features(4, 64, 7, 7)
        head = create_head("dropcov", in_features=64, parity=parity)
        head.conv.weight.data.zero_()  # equal importance of all channels: high cosine, rate 0
        i = torch.arange(64)
        diagonal = i * 64 - i * (i - 1) // 2
        return (head.train()(x)[:, diagonal].sum(1) / head.eval()(x)[:, diagonal].sum(1)).sqrt()

    def test_training_keeps_the_scale_of_evaluation(self) -> None:
        assert torch.allclose(self.scale(None), torch.ones(4), atol=1e-5)  # float32

    def test_released_training_scales_by_one_and_one_channel_in_d(self) -> None:
        assert torch.allclose(self.scale("released"), torch.full((4,), 1 + 1 / 64), atol=1e-5)  # float32

    def test_drops_channels_at_the_adaptive_rate(self) -> None:
        torch.manual_seed(0)
        x = drop_channels(torch.ones(200, 100, 3), torch.tensor(0.3))
        assert torch.equal(x.amin(2), x.amax(2))  # whole channels
        assert abs(float((x[:, :, 0] == 0).float().mean()) - 0.3) < 0.015  # 4.6 standard errors of 20000 draws
        assert torch.allclose(x.max(), torch.tensor(1 / 0.7))

    def test_convolution_learns(self) -> None:
        head = self.make().train()
        head(features(2, self.channels, 7, 7)).square().sum().backward()
        assert head.conv.weight.grad.abs().max() > 0


class GaussianTester(HeadTester):
    head = "gaussian"

    def test_matrix_embeds_mean_and_covariance(self) -> None:
        x = features(2, 4, 3, 5, dtype=torch.float64)
        head = create_head("gaussian", in_features=4, root="exact")
        flat = x.flatten(2)
        mean = flat.mean(2, keepdim=True)
        top = torch.cat([flat @ flat.mT / 15, mean], 2)
        embedding = torch.cat([top, torch.cat([mean.mT, torch.ones(2, 1, 1, dtype=x.dtype)], 2)], 1)
        root = head.normalize(flat)
        assert torch.allclose(root @ root, embedding, atol=1e-12)  # float64


class TestGaussian(Compiles, Exports, GaussianTester):
    pass


class TestGaussianExact(GaussianTester):
    args: ClassVar = {"root": "exact"}


class TestMgcrp(Compiles, Exports, HeadTester):
    head = "mgcrp"
    args: ClassVar = {"heads": 2, "head_dim": 3}
    half_tolerance = (3e-3, 2e-2)  # the projection runs in half precision

    def test_third_projection_of_released_weights_is_dropped(self) -> None:
        head = self.make()
        weight = noise(3 * 2 * 3, self.channels)
        head.load_state_dict({**head.state_dict(), "projection.weight": weight})
        assert torch.equal(head.projection.weight, weight[:12])


class TestMgcrpCovariance(HeadTester):
    head = "mgcrp"
    args: ClassVar = {"heads": 2, "head_dim": 3, "normalization": None, "mean": "channel"}
    half_tolerance = TestMgcrp.half_tolerance

    def test_is_the_cross_covariance_of_projections(self) -> None:
        x = features(1, self.channels, 9, 1, dtype=torch.float64)
        head = self.make().double()
        y = head.projection.weight @ x[0, :, :, 0]
        expected = torch.cov(y, correction=0)
        out = head(x).reshape(2, 3, 3)
        for h in range(2):
            assert torch.allclose(out[h], expected[3 * h : 3 * h + 3, 6 + 3 * h : 9 + 3 * h])


def test_every_head_goes_through_the_base_test() -> None:
    files = Path(__file__).parent.glob("test_*.py")
    tested = {name for file in files for name in re.findall(r'^    head = "(\w+)"', file.read_text(), re.MULTILINE)}
    assert tested == set(list_heads())


@pytest.mark.parametrize("name", sorted(set(list_heads()) - {"gap"}))
def test_every_second_order_head_is_finite_where_there_are_fewer_positions_than_channels(name: str) -> None:
    x = features(2, 12, 2, 3).requires_grad_()
    out = create_head(name, in_features=12)(x)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()


def test_features_of_other_channels_are_refused() -> None:
    head = create_head("isqrt", in_features=16)
    with pytest.raises(ZooError, match=r"expects \(B, 16, h, w\)"):
        head(noise(2, 49, 16))
    with pytest.raises(ZooError, match="got shape"):
        head(noise(2, 8, 7, 7))
