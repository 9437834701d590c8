"""Exported files: they give the model's answers, say what a caller must know, and run without torch."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from image_files import photo
from PIL import Image

import gcpzoo
from gcpzoo.analysis.exporting.agreement import CheckImages, logits_of, onnx_network
from gcpzoo.analysis.exporting.export import Exported, describe, export
from gcpzoo.analysis.exporting.quantization import quantizable, quantize
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import Preprocessing

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_without_torch.py"
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model() -> gcpzoo.GCPNet:
    """A small network with a root that ONNX has no operator for, and a normalization of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = gcpzoo.create_model("resnet18", "mpn_cov", 3, dim=6, until="layer1").eval()
    net.class_names = ["cat", "dog", "Fuß"]
    net.preprocessing = Preprocessing(resize=36, crop=32, interpolation="bicubic", mean=(0.2, 0.5, 0.6))
    return net


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Images whose folders name classes, but for the last, which has 16 bits; one gets smaller than the crop."""
    root = tmp_path_factory.mktemp("labelled")
    sizes = {"cat/0.png": (50, 40), "dog/1.png": (37, 90), "Fuß/2.png": (32, 32), "unknown/3.png": (64, 48)}
    for seed, (name, size) in enumerate(sizes.items()):
        path = root / name
        path.parent.mkdir()
        photo(*size, seed).save(path)
    Image.fromarray(np.asarray(photo(64, 48).convert("L")).astype(np.uint16) * 257).save(path)
    return [str(root / name) for name in sizes]


@pytest.fixture(scope="module")
def exported(model: gcpzoo.GCPNet, files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    return export(model, path, check=CheckImages.files(model, files), root="minimax")


def test_the_file_gives_the_networks_answers_and_the_roots_difference_is_measured(
    exported: Exported, model: gcpzoo.GCPNet
) -> None:
    assert exported.translation is not None
    assert exported.translation.logits < 1e-4  # float32, another library
    assert exported.agreement.images == 4
    assert exported.agreement.logits > exported.translation.logits  # minimax is near the exact root, not equal
    assert model.head.root == "exact"  # the model itself is left as it was


def test_accuracy_is_measured_where_folders_name_classes(
    exported: Exported, model: gcpzoo.GCPNet, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = CheckImages.files(model, files)
    assert images.labels == [0, 1, 2, None]
    monkeypatch.chdir(Path(files[1]).parent)
    assert CheckImages.files(model, ["1.png"]).labels == [1]  # the folder that one works in has a name too
    pixels = next(images.batches())
    assert pixels.dtype == torch.uint8
    answers = model(model.preprocessing.normalize(pixels)).argmax(1)[:3]
    assert exported.agreement.labelled == 3
    assert exported.agreement.before == pytest.approx(float((answers == torch.tensor([0, 1, 2])).float().mean()))


def test_batches_have_any_size_in_the_file(exported: Exported) -> None:
    session = onnx_network(exported.path)
    x = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = session(x)
    assert whole.shape == (5, 3)
    torch.testing.assert_close(torch.cat([session(part[None]) for part in x]), whole, atol=1e-5, rtol=1e-5)
    dimension = onnx.load(exported.path).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dimension] == ["batch", 3, 32, 32]


def test_the_metadata_say_what_a_caller_must_know(exported: Exported) -> None:
    (entry,) = onnx.load(exported.path).metadata_props
    about = json.loads(entry.value)
    assert entry.key == "gcpzoo"
    assert about == exported.metadata
    assert about["classes"] == ["cat", "dog", "Fuß"]
    assert (about["head"], about["root"], about["precision"]) == ("mpn_cov", "minimax", "float32")
    rule = about["preprocessing"]
    assert (rule["resize"], rule["crop"], rule["interpolation"], rule["mean"]) == (36, 32, "bicubic", [0.2, 0.5, 0.6])
    assert rule["steps"][1:3] == [
        "resize its shorter side to 36, the longer one in proportion, rounded down, bicubic, with antialiasing, as "
        "Pillow's Image.resize",
        "crop the 32×32 center; black borders where the image is smaller",
    ]
    assert about["licence"] == "none stated"


def test_a_resize_to_a_rectangle_is_said_as_rows_and_columns(small: gcpzoo.GCPNet) -> None:
    net = copy.copy(small)
    net.preprocessing = Preprocessing(resize=(20, 30), crop=None)
    about = describe(net)
    assert about["input"]["shape"] == ["batch", 3, 20, 30]
    assert about["preprocessing"]["steps"][1].startswith("resize it to 20 rows and 30 columns, bilinear")


def test_the_file_runs_where_torch_cannot_be_imported(
    exported: Exported, model: gcpzoo.GCPNet, files: list[str]
) -> None:
    code = "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    command = [sys.executable, "-c", code, str(EXAMPLE), exported.path, *files]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    p = logits_of(onnx_network(exported.path), CheckImages.files(model, files)).softmax(1)
    expected = [f"{f}: {model.class_names[row.argmax()]} {100 * row.max():.2f} %" for f, row in zip(files, p)]
    assert done.stdout.splitlines() == expected
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 33  # 30 and the docstring


def test_int8_leaves_the_covariance_alone(
    exported: Exported, model: gcpzoo.GCPNet, files: list[str], tmp_path: Path
) -> None:
    proto = onnx.load(exported.path)
    images = CheckImages.files(model, files)
    nodes = {node.name: node for node in proto.graph.node}
    chosen = [nodes[name].op_type for name in quantizable(proto, model)]
    assert chosen == ["Conv"] * 6  # the stem, four of the stage, the reduction
    assert sum(node.op_type == "MatMul" for node in nodes.values()) > 5  # the root's, none of them chosen
    quantized = quantize(proto, model, images)
    onnx.save(quantized, tmp_path / "int8.onnx")
    before, after = (logits_of(onnx_network(p), images) for p in (exported.path, tmp_path / "int8.onnx"))
    assert 0 < float((before - after).norm() / before.norm()) < 0.1  # rounding to 7 and 8 bits
    kept = [n.op_type for n in quantized.graph.node]
    assert kept.count("MatMul") == sum(node.op_type == "MatMul" for node in nodes.values())


def test_parts_with_a_covariance_inside_the_backbone_stay_in_float32() -> None:
    net = gcpzoo.create_model("resnet18", "gap", 3, until="layer1", blocks={"gsop": {"stages": [1]}})
    block = next(n for n, m in net.named_modules() if type(m).__module__.startswith("gcpzoo.blocks"))
    weight = onnx.numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), "w")
    convolutions = []
    for name in ("backbone.conv1", block, f"{block}.conv", "classifier"):
        node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name=name)
        scopes = [
            "",
            "model",
            f"model.{name.split('.')[0]}",
            f"model.{block}" if block in name else "",
            f"model.{name}",
        ]
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(scopes))
        convolutions.append(node)
    proto = onnx.helper.make_model(onnx.helper.make_graph(convolutions, "g", [], [], [weight]))
    assert quantizable(proto, net) == ["backbone.conv1"]


def test_a_root_without_onnx_operators_is_refused_with_what_works(
    model: gcpzoo.GCPNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter meets the eigendecomposition alone: recording a whole network takes seconds."""

    class Eigenvalues(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigh(images[:, 0].float()).eigenvalues

    program = torch.export.export(Eigenvalues(), (torch.zeros(2, 3, 4, 4, dtype=torch.uint8),))
    monkeypatch.setattr("gcpzoo.analysis.exporting.export._trace", lambda *_: program)
    (tmp_path / "net.onnx").write_text("what was there before")
    lacking = r"'mpn_cov' cannot become ONNX: it has no operator for aten._linalg_eigh"
    with pytest.raises(ZooError, match=rf"{lacking}.*--root minimax.*--format torch_export"):
        export(model, tmp_path / "net.onnx")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["what was there before"]


def test_a_file_whose_answers_are_not_the_models_is_not_written(
    model: gcpzoo.GCPNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong translation is imitated by a program that forgets to divide by the deviation."""

    class Wrong:
        def module(self) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda x: model(x.float() / 255)

    monkeypatch.setattr("gcpzoo.analysis.exporting.export._trace", lambda *_: None)
    monkeypatch.setattr(torch.export, "save", lambda program, path, extra_files: path.touch())
    monkeypatch.setattr(torch.export, "load", lambda path: Wrong())
    with pytest.raises(ZooError, match="probabilities differ by up to .* nothing is written"):
        export(model, tmp_path / "net.pt2", "torch_export")
    assert not list(tmp_path.iterdir())


def test_float16_is_measured_and_the_metadata_travel_with_torch_export(
    cli: Cli, model: gcpzoo.GCPNet, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gcpzoo.hub.loading.load", lambda name: model)
    code, out, err = cli(
        "export", "--model", "net", "--format", "torch_export", "--output", "net.pt2", "--half", "float16",
        "--check", *files,
    )  # fmt: skip
    assert code == 0, err
    assert "net.pt2: 0.5 MB, images (batch, 3, 32, 32) → logits (batch, 3), float16" in out
    assert "checked by torch.export on 4 images: the given images" in out
    assert "float16: probabilities differ by at most " in out
    assert "same class for 4 of 4" in out
    assert "accuracy on 3 labelled images: 33.33 % before, 33.33 % in net.pt2" in out
    extra = {"gcpzoo.json": ""}
    program = torch.export.load("net.pt2", extra_files=extra)
    assert json.loads(extra["gcpzoo.json"]) == describe(model, "float16")
    assert {t.dtype for name, t in program.state_dict.items() if "conv" in name} == {torch.float16}


def test_mistakes_are_answered_before_the_work(
    cli: Cli, small: gcpzoo.GCPNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(**options: object) -> str:
        with pytest.raises(ZooError) as raised:
            export(small, **{"path": tmp_path / "net.onnx", **options})  # type: ignore[arg-type]
        return str(raised.value)

    images = CheckImages.digits(small)
    assert "unknown format 'tflite'" in error(format="tflite")
    assert "output must end in .onnx for onnx, got 'net.pt2'" in error(path=Path("net.pt2"))
    assert "INT8 is an option of the format onnx" in error(
        path=Path("net.pt2"), format="torch_export", calibration=images
    )
    assert "float16 and INT8 exclude each other" in error(half=True, calibration=images)
    assert "unknown root 'minmax': did you mean minimax?" in error(root="minmax")
    clips = gcpzoo.create_model("resnet18", "tcp", 3, dim=4, until="layer1", head_args={"frames": 2})
    with pytest.raises(ZooError, match="reads 2 frames"):
        export(clips, tmp_path / "net.onnx")
    average = gcpzoo.create_model("resnet18", "gap", 3, until="layer1")
    with pytest.raises(ZooError, match="'gap' has no root to exchange"):
        export(average, tmp_path / "net.onnx", root="minimax")
    with torch.no_grad():
        average.classifier.weight[0, 0] = 1e6
    with pytest.raises(ZooError, match=r"float16 cannot hold the values of classifier.weight"):
        export(average, tmp_path / "net.onnx", half=True)
    monkeypatch.setattr("gcpzoo.analysis.exporting.export.LARGEST", 1000)
    assert "holds up to 2 GiB" in error()
    code, _, err = cli("export", "--model", "resnet18_isqrt.digits", "--output", "d.onnx", "--int8")
    assert (code, err.count("\n")) == (2, 1)
    assert "--int8 and --calibration FOLDER go together" in err


def test_without_onnx_the_extra_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, _, err = cli("export", "--model", "resnet18_isqrt.digits", "--output", "d.onnx")
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'gcpzoo[export]'" in err


def test_calibration_images_are_taken_from_all_folders(model: gcpzoo.GCPNet) -> None:
    paths = [f"{name}/{i}.png" for name in ("cat", "dog", "Fuß") for i in range(10)]
    taken = CheckImages.files(model, paths).at_most(6)
    assert taken.images == ["cat/0.png", "cat/5.png", "dog/0.png", "dog/5.png", "Fuß/0.png", "Fuß/5.png"]
    assert taken.labels == [0, 0, 1, 1, 2, 2]


def test_answers_that_are_not_finite_are_refused() -> None:
    from gcpzoo.analysis.exporting.agreement import Agreement

    with pytest.raises(ZooError, match="not finite"):
        Agreement.of(torch.zeros(1, 2), torch.tensor([[np.inf, 0.0]]), [None])
