"""What happens where a package that only a part needs is not installed."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import gcpzoo
from gcpzoo.cli.main import EXTRAS

Cli = Callable[..., tuple[int, str, str]]
DISTRIBUTIONS = {"corrupt_tta": "corrupt-tta", "python_multipart": "python-multipart", "pytorch_grad_cam": "grad-cam"}
"""Names of the packages that install a module of another name."""
ROOT = Path(__file__).parents[2]


def test_every_extra_is_named_for_the_package_it_installs() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = declared["optional-dependencies"]
    parts = {name: packages for name, packages in optional.items() if name not in ("all", "dev")}
    installed = {module: DISTRIBUTIONS.get(module, module) for module in EXTRAS}
    modules = {extra: {installed[m] for m, e in EXTRAS.items() if e == extra} for extra in EXTRAS.values()}
    declared_by = {extra: {package.partition(">")[0] for package in packages} for extra, packages in parts.items()}
    assert modules == {extra: packages for extra, packages in declared_by.items() if extra != "docs"}
    assert not [d for d in declared["dependencies"] if d.startswith(tuple(EXTRAS))]
    assert optional["all"] == [f"gcpzoo[{','.join(parts)}]"]


def test_a_missing_extra_is_one_line_that_names_it(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    monkeypatch.setenv("GCPZOO_CACHE", str(tmp_path / "cache"))
    code, _, err = cli("verify", "resnet50_isqrt.in1k_li2018")
    assert code == 2
    assert err.count("\n") == 1
    assert "pip install 'gcpzoo[authors]'" in err


def test_a_missing_requirement_is_one_line_without_an_extra(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str]) -> int:
        raise ModuleNotFoundError("No module named 'PIL'", name="PIL.Image")

    monkeypatch.setattr("gcpzoo.cli.main.run", run)
    code, _, err = cli("list")
    assert (code, err.count("\n")) == (2, 1)
    assert "the installation is incomplete" in err


def test_a_missing_library_of_the_system_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str]) -> int:
        raise ImportError("libxcb.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr("gcpzoo.cli.main.run", run)
    code, _, err = cli("explain", "bird.jpg", "--model", "resnet18_isqrt.digits", "--output", "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "libxcb.so.1" in err
    assert "apt-get install libgl1" in err


def test_without_tensorboard_only_the_csv_log_is_written(
    cli: Cli, small_fit: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gcpzoo.cli.zoo_cli.find_spec", lambda name: None)
    code, _, err = cli(*small_fit, "--output", "run", "--trainer.max_epochs", "1")
    assert code == 0, err
    assert Path("run/metrics.csv").is_file()
    assert not list(Path("run").glob("events.*"))


def test_the_package_is_typed() -> None:
    package = Path(gcpzoo.__file__).parent
    assert {"py.typed", "__init__.pyi"} <= {path.name for path in package.iterdir()}
