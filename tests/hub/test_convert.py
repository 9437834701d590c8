"""The authors' released networks, converted: their logits from weights that anyone can make again."""

from __future__ import annotations

import json
import zlib
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import gcpzoo
from gcpzoo.blocks import GSoP
from gcpzoo.errors import ZooError
from gcpzoo.heads.reduction import Reduction
from gcpzoo.hub import convert
from gcpzoo.hub.convert import common

RELEASED = Path(__file__).parents[1] / "files" / "released"
NETWORKS = sorted(path.stem for path in RELEASED.glob("*.json"))
NAMED = {own: theirs for theirs, own in Reduction.RELEASED_NAMES.items() if theirs.startswith("layer_reduce")}
LAYER_REDUCE = common.renames(NAMED)


def weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """The weights under which the released networks' logits were taken: random, from each name's CRC-32."""

    def tensor(name: str, shape: list[int]) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        if name.endswith("num_batches_tracked"):
            return torch.zeros(shape, dtype=torch.long)
        if name.endswith("running_var"):
            return 0.5 + torch.rand(shape, generator=generator)
        noise = torch.randn(shape, generator=generator)
        if len(shape) >= 2 and not name.endswith("running_mean"):
            return noise * (2 / noise[0].numel()) ** 0.5
        return 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise

    return {name: tensor(name, shape) for name, shape in shapes.items()}


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def small_resnet(dim: int, columns: int, classes: int = 5) -> dict[str, Tensor]:
    """ResNet-18 with a reduction to ``dim`` channels in the authors' names, and a classifier of ``columns``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = gcpzoo.create_model("resnet18", "isqrt", classes, dim=dim, last_stride=1)
    state = {k.removeprefix("backbone."): v for k, v in model.state_dict().items() if k.startswith("backbone.")}
    state |= common.rename(model.head.reduction.state_dict(), LAYER_REDUCE)
    generator = torch.Generator().manual_seed(1)
    return {
        **state,
        "fc.weight": torch.randn(classes, columns, generator=generator),
        "fc.bias": torch.randn(classes, generator=generator),
    }


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("network", NETWORKS)
def test_released_logits(network):
    about = json.loads((RELEASED / f"{network}.json").read_text())
    source, arch = network.split(".")
    config, state = import_module(f"gcpzoo.hub.convert.{source}").convert(weights(about["state_dict"]), arch)
    model = common.assemble(config, state, network)
    x = torch.randn(about["input"]["shape"], generator=torch.Generator().manual_seed(about["input"]["seed"]))
    with torch.inference_mode():
        # sums in another order, in float32 through up to 100 layers
        assert relative_error(model(x), load_file(RELEASED / f"{network}.safetensors")["logits"]) < 1e-4


class TestFiles:
    """What surrounds the tensors in the authors' files."""

    def test_wrapping_and_missing_counters(self, tmp_path, images):
        plain = small_resnet(8, 36)
        torch.save(plain, tmp_path / "plain.pth")
        wrapped = {f"module.{k}": v for k, v in plain.items() if not k.endswith("num_batches_tracked")}
        checkpoint = {"epoch": 100, "arch": "resnet18_mpncov", "best_acc1": torch.tensor(75.4), "state_dict": wrapped}
        checkpoint["optimizer"] = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []}
        torch.save(checkpoint, tmp_path / "wrapped.pth.tar")
        for name, folder in (("plain.pth", "a"), ("wrapped.pth.tar", "b")):
            convert(tmp_path / name, "gcp_optimization", "resnet18_mpncov", tmp_path / folder)
        a, b = (gcpzoo.load(f"local-dir:{tmp_path / folder}") for folder in "ab")
        with torch.inference_mode():
            assert torch.equal(a(images), b(images))
        assert a.config["num_classes"] == 5
        assert a.config["dim"] == 8
        assert "resnet18_mpncov of gcp_optimization" in a.record.provenance

    def test_features_of_a_cut_network(self, tmp_path, images):
        """fast-MPN-COV's second layout: numbered features in DataParallel, representation, classifier."""
        plain = small_resnet(8, 36)
        numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
        cut = {}
        for key, value in plain.items():
            part, rest = key.split(".", 1)
            block = Reduction.RELEASED_NAMES
            if part in numbers:
                cut[f"features.module.{numbers[part]}.{rest}"] = value
            elif part in block:
                cut[f"representation.conv_dr_block.{block[part]}.{rest}"] = value
            else:
                cut[f"classifier.{rest}"] = value
        for name, state in (("plain", plain), ("cut", cut)):
            torch.save(state, tmp_path / f"{name}.pth")
            convert(tmp_path / f"{name}.pth", "fast_mpn_cov", "mpncovresnet18", tmp_path / name)
        with torch.inference_mode():
            a, b = (gcpzoo.load(tmp_path / name)(images) for name in ("plain", "cut"))
        assert torch.equal(a, b)

    def test_a_file_that_does_not_fit_says_so(self, tmp_path):
        torch.save(small_resnet(8, 36), tmp_path / "w.pth")
        with pytest.raises(ZooError, match=r"resnet34_mpncov.*does not fit: \d+ missing"):
            convert(tmp_path / "w.pth", "gcp_optimization", "resnet34_mpncov", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_pickle_that_runs_code_is_refused(self, tmp_path):
        torch.save({"state_dict": print}, tmp_path / "w.pth")
        with pytest.raises(ZooError, match="holds more than tensors"):
            convert(tmp_path / "w.pth", "dropcov", "resnet18_ACD", tmp_path / "out")

    def test_unknown_names_come_with_what_there_is(self, tmp_path):
        torch.save(small_resnet(8, 36), tmp_path / "w.pth")
        with pytest.raises(ZooError, match="did you mean fast_mpn_cov"):
            convert(tmp_path / "w.pth", "fastmpncov", "mpncovresnet50", tmp_path / "out")
        with pytest.raises(ZooError, match="unknown architecture 'resnet7': this source has resnet18_ACD"):
            convert(tmp_path / "w.pth", "dropcov", "resnet7", tmp_path / "out")
        with pytest.raises(ZooError, match="transformers cannot be converted"):
            convert(tmp_path / "w.pth", "dropcov", "T2T_Drop_Small", tmp_path / "out")


class TestClassifier:
    def test_columns_in_the_lower_order_are_permuted(self, tmp_path, images):
        """A classifier trained on the triangle column by column gives the same logits after conversion."""
        state = small_resnet(8, 36)
        torch.save(state, tmp_path / "w.pth")
        upper = convert(tmp_path / "w.pth", "fast_mpn_cov", "mpncovresnet18", tmp_path / "upper")
        lower = convert(tmp_path / "w.pth", "fast_mpn_cov", "mpncovresnet18", tmp_path / "lower", triangle="lower")
        with torch.inference_mode():
            vector = upper.forward_head(upper.forward_features(images), pre_logits=True)
            i, j = torch.triu_indices(8, 8)
            matrix = torch.zeros(2, 8, 8)
            matrix[:, i, j] = matrix[:, j, i] = vector
            old, new = torch.tril_indices(8, 8)
            expected = matrix[:, old, new] @ state["fc.weight"].T + state["fc.bias"]
            torch.testing.assert_close(lower(images), expected)

    def test_the_known_file_is_permuted_by_its_hash(self, tmp_path, monkeypatch):
        from gcpzoo.hub.convert import fast_mpn_cov
        from gcpzoo.hub.files import sha256

        torch.save(small_resnet(8, 36), tmp_path / "w.pth")
        lower = convert(tmp_path / "w.pth", "fast_mpn_cov", "mpncovresnet18", tmp_path / "a", triangle="lower")
        monkeypatch.setattr(fast_mpn_cov, "LOWER", (sha256(tmp_path / "w.pth")[:8],))
        known = convert(tmp_path / "w.pth", "fast_mpn_cov", "mpncovresnet18", tmp_path / "b")
        assert torch.equal(known.classifier.weight, lower.classifier.weight)

    def test_the_full_matrix_folds_into_its_triangle(self, tmp_path, images):
        state = small_resnet(8, 64)
        torch.save(state, tmp_path / "w.pth")
        model = convert(tmp_path / "w.pth", "differentiable_svd", "pade_resnet18", tmp_path / "out")
        assert model.config["head"] == "svd_pade"
        with torch.inference_mode():
            vector = model.forward_head(model.forward_features(images), pre_logits=True)
            i, j = torch.triu_indices(8, 8)
            matrix = torch.zeros(2, 8, 8)
            matrix[:, i, j] = matrix[:, j, i] = vector
            expected = matrix.flatten(1) @ state["fc.weight"].T + state["fc.bias"]
            torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(
    ("attention", "dim"),
    [("channel", 8), ("position", None), ("average", None), ("maximum", 8), ("concatenation", None)],
)
def test_gsop_networks_are_recognised_by_their_tensors(attention, dim, images):
    """Net1 (no reduction) and Net2, with blocks in some stages: the authors' names lead back to the same network."""
    from gcpzoo.hub.convert import gsop

    blocks = {"gsop": {"stages": [2, 4], "attention": attention, "attention_dim": 16}}
    head, head_args = ("isqrt", {"iterations": 3}) if dim else ("gap", {})
    ours = gcpzoo.create_model("resnet18", head, 5, dim=dim, head_args=head_args, last_stride=1, blocks=blocks).eval()
    names = {own: theirs for theirs, own in GSoP.RELEASED_NAMES.items()}
    table = common.renames(names, theirs=r"backbone\.(layer\d\.\d)\.gsop\.", ours=r"\1.")
    reduction = {f"head.reduction.{own}": theirs for own, theirs in NAMED.items()}
    rest = ((r"^backbone\.", ""), (r"^classifier\.", "fc."))
    theirs = common.rename(ours.state_dict(), (*table, *common.renames(reduction), *rest))
    arch = "resnet18_maximum" if attention == "maximum" else "resnet18"
    model = common.assemble(*gsop.convert(theirs, arch), arch)
    assert model.config == {**ours.config, "dim": dim}
    with torch.inference_mode():
        assert torch.equal(model(images), ours(images))


class TestGlobalAveragePooling:
    """The control networks of the same sources: torchvision's own, up to names."""

    @pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2", "shufflenet_v2_x1_0"])
    def test_gcp_optimization(self, arch, images):
        from torchvision.models import get_model

        from gcpzoo.hub.convert import gcp_optimization

        theirs = get_model(arch, weights=None, num_classes=7).eval()
        model = common.assemble(*gcp_optimization.convert(dict(theirs.state_dict()), arch), arch)
        with torch.inference_mode():
            torch.testing.assert_close(model(images), theirs(images), atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("arch", ["resnet18", "resnet50b", "resnet50"])
    def test_pytorchcv(self, arch, images):
        """Networks without the b stride in the first convolution of a bottleneck."""
        from torchvision.models import get_model
        from torchvision.models.resnet import Bottleneck

        from gcpzoo.hub.convert import pytorchcv

        theirs = get_model(arch.removesuffix("b"), weights=None, num_classes=7).eval()
        if arch == "resnet50":
            for block in theirs.modules():
                if isinstance(block, Bottleneck) and block.stride == 2:
                    block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
        state = {}
        for key, value in theirs.state_dict().items():
            part, *rest = key.split(".")
            if part.startswith("layer"):
                unit, name, *tensor = rest
                if name == "downsample":
                    name = "identity_conv." + ("conv" if tensor.pop(0) == "0" else "bn")
                else:
                    name = f"body.conv{name[-1]}." + name[:-1]
                key = ".".join([f"features.stage{part[-1]}.unit{int(unit) + 1}", name, *tensor])
            else:
                first = "features.init_block.conv"
                key = ".".join([{"conv1": f"{first}.conv", "bn1": f"{first}.bn", "fc": "output"}[part], *rest])
            state[key] = value
        model = common.assemble(*pytorchcv.convert(state, arch), arch)
        with torch.inference_mode():
            torch.testing.assert_close(model(images), theirs(images), atol=1e-5, rtol=1e-4)
