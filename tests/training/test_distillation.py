"""A teacher: the loss it adds, what it sees, that it stays as it is, and that a run goes on with the same one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from run_files import NINE_BATCHES, RANDOM, Moments, assert_same_results, differences, read_checkpoint
from torch import Tensor
from torch.nn import functional as F

import gcpzoo
from gcpzoo.data import Digits, ImageFolder
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.training import ClassificationTask, DistillationConfig, OptimizerConfig
from gcpzoo.training.distillation import soft_target_loss

Cli = Callable[..., tuple[int, str, str]]
CLASSES = ["east", "north", "south"]
SMALL = {"num_classes": 3, "backbone": "resnet18", "until": "layer1", "dim": 8, "optimizer": OptimizerConfig(lr=0.05)}


def save_teacher(path: Path, seed: int = 5, classes: list[str] | None = CLASSES, **preprocessing: object) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = gcpzoo.create_model("resnet18", "isqrt", 3, dim=6, until="layer1")
        torch.nn.init.normal_(model.classifier.weight)  # a new one is hardly sure of anything
    model.class_names = classes
    model.preprocessing = Preprocessing(**{"resize": 36, "crop": 32, **preprocessing})  # type: ignore[arg-type]
    gcpzoo.hub.save_local(model, path)
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network of another architecture with the classes and the preprocessing of the images."""
    return str(save_teacher(tmp_path_factory.mktemp("teacher") / "model"))


@pytest.fixture
def data(folder: Path) -> ImageFolder:
    return ImageFolder(str(folder), image_size=32, batch_size=6, workers=0)


def fit(task: ClassificationTask, data: L.LightningDataModule, folder: Path, **options: object) -> L.Trainer:
    trainer = L.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, **{"max_epochs": 1, **options},  # type: ignore[arg-type]
    )  # fmt: skip
    trainer.fit(task, data)
    return trainer


def kept(task: ClassificationTask) -> list[tuple[Tensor, ...]]:
    """Collect the arguments and the loss of every step."""
    seen: list[tuple[Tensor, ...]] = []
    blend = task.distillation.__call__

    class Watched(type(task.distillation)):  # type: ignore[misc]
        def __call__(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
            blended: Tensor = blend(loss, logits, images)
            seen.append(tuple(t.detach().clone() for t in (loss, logits, images, blended)))
            return blended

    task.distillation.__class__ = Watched
    return seen


def test_the_soft_loss_is_the_papers_formula_and_its_gradient_keeps_its_size() -> None:
    z_s, z_t = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in (0.5, 1.0, 4.0):
        p, q = (z_t / t).softmax(1), (z_s / t).softmax(1)
        expected = t**2 * (p * (p / q).log()).sum(1).mean()
        torch.testing.assert_close(soft_target_loss(z_s, z_t, t), expected)
    z_s.requires_grad_()
    (gradient,) = torch.autograd.grad(soft_target_loss(z_s, z_t, 1e3), z_s)  # hot: differences of centered logits
    difference = (z_s - z_s.mean(1, True)) - (z_t - z_t.mean(1, True))
    torch.testing.assert_close(gradient, difference / 5 / 7, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("mixing", [{}, {"mixup_alpha": 0.8}, {"cutmix_alpha": 1.0, "label_smoothing": 0.1}])
def test_the_loss_of_every_step_has_the_teachers_share_of_the_same_images(
    mixing: dict[str, float], teacher: str, data: ImageFolder, tmp_path: Path
) -> None:
    task = ClassificationTask(**SMALL, **mixing, distillation=DistillationConfig(teacher, temperature=3.0, weight=0.7))
    seen = kept(task)
    fit(task, data, tmp_path)
    network = gcpzoo.load(teacher)
    assert len(seen) == 3
    for loss, logits, images, blended in seen:
        with torch.no_grad():
            p, q = (network(images) / 3).log_softmax(1), (logits / 3).log_softmax(1)
        assert float(9 * (p.exp() * (p - q)).sum(1).mean()) > 0.01
        expected = 0.3 * loss + 0.7 * 9 * (p.exp() * (p - q)).sum(1).mean()
        torch.testing.assert_close(blended, expected, rtol=1e-5, atol=1e-6)


def test_a_weight_of_0_is_plain_training_bit_for_bit(teacher: str, data: ImageFolder, tmp_path: Path) -> None:
    states = []
    for config in (DistillationConfig(), DistillationConfig(teacher, weight=0.0), DistillationConfig(teacher)):
        L.seed_everything(1)
        task = ClassificationTask(**SMALL, dropout=0.2, mixup_alpha=0.3, distillation=config)
        fit(task, data, tmp_path)
        states.append(task.state_dict())
    assert list(differences(states[0], states[1])) == []
    assert list(differences(states[0], states[2])) != []


def test_a_student_of_weight_1_comes_to_answer_as_its_teacher(tmp_path: Path) -> None:
    """The labels play no part: they are all the same class here."""
    name = "resnet18_isqrt.digits"
    data = Digits(image_size=32, batch_size=32, workers=0)
    data.on_after_batch_transfer = lambda batch, i: (data.preprocessing.normalize(batch[0]), batch[1] * 0)  # type: ignore[method-assign]
    L.seed_everything(0)
    task = ClassificationTask(
        **{**SMALL, "num_classes": 10, "optimizer": OptimizerConfig(lr=0.05, classifier_lr_factor=5)},
        distillation=DistillationConfig(name, weight=1.0),
    )
    fit(task, data, tmp_path, max_epochs=2)
    images = torch.stack([data.test_dataloader().dataset[i][0] for i in range(0, 360, 3)])
    x = data.preprocessing.normalize(images)
    with torch.no_grad():
        same = task.eval()(x).argmax(1) == gcpzoo.load(name)(x).argmax(1)
    assert same.float().mean() > 0.8  # chance is 0.1


def test_the_teacher_stays_as_it_is_and_is_part_of_no_checkpoint(
    teacher: str, data: ImageFolder, tmp_path: Path
) -> None:
    task = ClassificationTask(**SMALL, distillation=DistillationConfig(teacher))
    trainer = fit(task, data, tmp_path)
    network, fresh = task.distillation.network, gcpzoo.load(teacher)
    assert network is not None
    assert not any(module.training for module in network.modules())
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())
    assert list(differences(network.state_dict(), fresh.state_dict())) == []
    plain = ClassificationTask(**SMALL)
    assert task.state_dict().keys() == plain.state_dict().keys()
    assert len(list(task.parameters())) == len(list(plain.parameters()))
    trainer.save_checkpoint(tmp_path / "student.ckpt")
    content = torch.load(tmp_path / "student.ckpt", weights_only=True)
    assert content["state_dict"].keys() == plain.state_dict().keys()
    assert content["callbacks"]["Distillation"] == {"sha256": task.distillation.sha256}
    assert gcpzoo.load(tmp_path / "student.ckpt").state_dict().keys() == plain.model.state_dict().keys()


def test_the_teacher_sees_the_images_in_its_own_normalization(data: ImageFolder, tmp_path: Path) -> None:
    half = (0.5, 0.5, 0.5)
    name = str(save_teacher(tmp_path / "half", mean=half, std=half))
    task = ClassificationTask(**SMALL, distillation=DistillationConfig(name, temperature=1.0, weight=1.0))
    seen = kept(task)
    fit(task, data, tmp_path)
    network, own = gcpzoo.load(name), data.preprocessing
    _, logits, images, blended = seen[0]
    pixels = (images * torch.tensor(own.std)[:, None, None] + torch.tensor(own.mean)[:, None, None]).clamp(0, 1)
    with torch.no_grad():
        torch.testing.assert_close(blended, soft_target_loss(logits, network((pixels - 0.5) / 0.5), 1.0))
        assert not torch.isclose(blended, soft_target_loss(logits, network(images), 1.0))


def test_a_teacher_of_another_size_is_refused_or_sees_resized_images(data: ImageFolder, tmp_path: Path) -> None:
    name = str(save_teacher(tmp_path / "large", resize=55, crop=48))
    task = ClassificationTask(**SMALL, distillation=DistillationConfig(name))
    with pytest.raises(
        ZooError, match=r"sees images of 48×48 px, this training 32×32 px: set data\.image_size, or dis"
    ):
        fit(task, data, tmp_path)
    task = ClassificationTask(**SMALL, distillation=DistillationConfig(name, 1.0, 1.0, resize=True))
    seen = kept(task)
    fit(task, data, tmp_path)
    _, logits, images, blended = seen[0]
    large = F.interpolate(images, (48, 48), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(blended, soft_target_loss(logits, gcpzoo.load(name)(large), 1.0))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["east", "south", "north"], "class 1 is 'south' to the teacher and 'north' in the data"),
        (None, "it does not say which classes it knows"),
    ],
)
def test_a_teacher_of_other_classes_is_refused(
    classes: list[str] | None, message: str, data: ImageFolder, tmp_path: Path
) -> None:
    name = save_teacher(tmp_path / "other", classes=classes)
    with pytest.raises(ZooError, match=f"must know the classes of the data: {message}"):
        fit(ClassificationTask(**SMALL, distillation=DistillationConfig(str(name))), data, tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"teacher": "t", "temperature": 0.0}, "temperature must be between 0.01 and 1000, got 0.0"),
        ({"teacher": "t", "weight": 1.5}, "weight must be between 0 and 1, got 1.5"),
        ({"temperature": 2.0}, r"distillation\.temperature needs a teacher: set distillation\.teacher"),
    ],
)
def test_values_that_cannot_work_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        DistillationConfig(**values)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_the_teacher_follows_the_trainers_precision(
    precision: str, teacher: str, data: ImageFolder, tmp_path: Path
) -> None:
    task = ClassificationTask(**SMALL, distillation=DistillationConfig(teacher, weight=1.0))
    seen = kept(task)
    fit(task, data, tmp_path, precision=precision)
    network = task.distillation.network
    assert network is not None
    assert {p.dtype for p in network.parameters()} == {task.dtype}
    _, logits, images, blended = seen[0]
    with torch.no_grad():
        expected = soft_target_loss(logits.float(), gcpzoo.load(teacher)(images.float()), 4.0)
    assert float(blended) == pytest.approx(float(expected), rel=0.1)  # bfloat16 has 8 bits


# --- from the command line


@pytest.fixture
def student(folder: Path, teacher: str) -> list[str]:
    return [
        "fit", "--data", "ImageFolder", "--data.root", str(folder), *NINE_BATCHES,
        "--model.distillation.teacher", teacher, "--model.distillation.weight", "0.5",
    ]  # fmt: skip


def test_a_student_that_was_stopped_goes_on_exactly(
    cli: Cli, student: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = Moments(monkeypatch)
    left = moments.copy(tmp_path / "full", (1, 5))
    code, _, err = cli(*student, *RANDOM, "--output", "full")
    assert code == 0, err
    code, _, err = cli(*student, *RANDOM, "--output", left, "--resume")
    assert code == 0, err
    assert_same_results(tmp_path / "full", left)
    report = json.loads((left / "metrics.json").read_text())
    state = read_checkpoint(left)["callbacks"]["Distillation"]
    assert report["teacher"]["sha256"] == state["sha256"]
    assert (report["teacher"]["weight"], report["teacher"]["temperature"]) == (0.5, 4.0)


def test_a_run_does_not_go_on_with_another_teacher(
    cli: Cli, student: list[str], teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither with one of another name nor with one that has taken the name's place."""
    own = save_teacher(tmp_path / "own")
    arguments = [*student, "--evaluate", "false", "--model.distillation.teacher"]
    left = Moments(monkeypatch).copy(tmp_path / "full", (1, 5))
    assert cli(*arguments, own, "--output", "full")[0] == 0
    before = read_checkpoint(left)
    code, _, err = cli(*arguments, teacher, "--output", left, "--resume")
    assert code == 2
    assert "model.distillation.teacher=" in err
    save_teacher(own, seed=6)
    code, _, err = cli(*arguments, own, "--output", left, "--resume")
    assert code == 2
    assert "is not the one that this run began with" in err
    assert list(differences(before, read_checkpoint(left))) == []


def test_a_student_is_evaluated_without_its_teacher(cli: Cli, student: list[str], tmp_path: Path) -> None:
    own = save_teacher(tmp_path / "own")
    arguments = [*student, "--model.distillation.teacher", own, "--evaluate", "false", "--trainer.max_epochs", "1"]
    assert cli(*arguments, "--output", "run")[0] == 0
    (own / "model.safetensors").unlink()
    data = student[1:9]
    code, _, err = cli("test", *data, "--ckpt_path", "run/checkpoints/last.ckpt", "--output", "tested")
    assert code == 0, err
    test = json.loads(Path("tested/metrics.json").read_text())["test"]
    assert 0 <= test["ece"] <= 1
    assert 0 <= test["brier"] <= 2


def test_a_runs_folder_teaches_and_a_wrong_name_is_known_before_the_images_are_checked(
    cli: Cli, small_fit: list[str], run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = [*small_fit, "--trainer.max_epochs", "1", "--evaluate", "false", "--model.distillation.teacher"]
    code, _, err = cli(*quick, run_folder, "--output", "student")
    assert code == 0, err
    report = json.loads(Path("student/metrics.json").read_text())
    assert report["teacher"]["teacher"] == str(run_folder)
    monkeypatch.setattr(ImageFolder, "setup", lambda *_: pytest.fail("the images are checked first"))
    code, _, err = cli(*quick, "resnet18_isqrt.digit", "--output", "other")
    assert code == 2
    assert "did you mean resnet18_isqrt.digits" in err
