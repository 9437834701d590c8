"""What many tests need: small images in class folders, the command line as a function, a Hub on this machine."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from image_files import draw
from standin import Hub

import gcpzoo
from gcpzoo.analysis.drawing import plots
from gcpzoo.cli.main import main
from gcpzoo.models.preprocessing import Preprocessing

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes in train, val and test folders."""
    root = tmp_path_factory.mktemp("images")
    for split, n in (("train", 6), ("val", 2), ("test", 3)):
        for label, name in enumerate(("north", "east", "south")):
            for k in range(n):
                draw(root / split / name / f"{k}.png", label, seed=k + 100 * len(split))
    return root


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable:
    """Run a command line in an empty folder: ``cli("list")`` gives exit code, output and error output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "raiseExceptions", False)  # Lightning's handlers hold another test's stderr

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:  # argparse's own way out
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures of a run empty: they take half of the time of a small one."""
    monkeypatch.setattr(plots, "write_png", lambda figure, path: path.write_bytes(b""))


@pytest.fixture(scope="session")
def small_fit(folder: Path) -> list[str]:
    """Arguments of a fit of seconds: ResNet-18 up to its first stage on the three classes."""
    return [
        "fit", "--data", "ImageFolder", "--data.root", str(folder), "--data.workers", "0", "--data.batch_size", "6",
        "--data.image_size", "32", "--model.backbone", "resnet18", "--model.until", "layer1", "--model.dim", "8",
        "--model.optimizer.lr", "0.05", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def ended_run(small_fit: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small run that has ended, with its pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("ended"))
        assert main([*small_fit, "--output", "run"]) == 0
        return Path("run").resolve()


@pytest.fixture
def run_folder(ended_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, ``run`` in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(ended_run, tmp_path / "run")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Hub], None]:
    """Point this process's client at a Hub, with a cache of its own, plain HTTP and no waiting between attempts."""

    def connected(hub: Hub) -> None:
        url = hub.start()
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "xet"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not hub.xet)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        patient = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
        monkeypatch.setattr("huggingface_hub.utils._http.time", patient)
        monkeypatch.setenv("HF_TOKEN", "hf_owner")

    return connected


@pytest.fixture
def hub(tmp_path: Path, connect: Callable[[Hub], None]) -> Iterator[Hub]:
    """A running Hub with an owner, a visitor, and a reader whose token may not write; this process is the owner."""
    service = Hub(tmp_path / "hub")
    service.add_user("owner", "hf_owner")
    service.add_user("visitor", "hf_visitor")
    service.add_user("reader", "hf_reader", "read")
    connect(service)
    yield service
    service.stop()


@pytest.fixture(scope="session")
def small() -> gcpzoo.GCPNet:
    """ResNet-18 up to its first stage with an iSQRT-COV head of 8 channels and three classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = gcpzoo.create_model("resnet18", "isqrt", 3, dim=8, until="layer1").eval()
    model.class_names = ["a cat", "a dog", "ein Fuß"]
    model.preprocessing = Preprocessing(resize=64, crop=48)
    return model


@pytest.fixture(scope="session")
def image() -> torch.Tensor:
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
