"""Build the package and try what was built, as somebody who installs it would: ``make release``.

    scripts/try_release.py                      # wheel and sdist, newest and lowest dependencies: four environments
    scripts/try_release.py --files wheel --versions newest
    scripts/try_release.py --dry                # no dependency is installed: those of this environment are used
    scripts/try_release.py --lowest             # print the lowest versions that pyproject.toml allows, nothing else

Builds sdist and wheel into dist/, runs ``twine check``, looks into both, installs each into a new environment, and
there lists, loads, predicts and trains outside the checkout. Then it asks pip whether each extra can be resolved, adds
the extra ``all`` to the wheel, asks page and server for an answer, exports and explains. An environment takes 8 GB and
some minutes; each is deleted before the next. Needs a network, ``build``, ``twine``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
IN_WHEEL = (
    "gcpzoo/py.typed", "gcpzoo/__init__.pyi", "gcpzoo/configs/finetune/images.yaml", "gcpzoo/checkpoints/records/",
    "gcpzoo/checkpoints/resnet18_isqrt.digits.safetensors",
)  # fmt: skip
IN_SDIST = ("pyproject.toml", "README.md", "gcpzoo/", "configs/", "checkpoints/records/", "tests/", "docs/", "LICENSE")
NOT_IN_EITHER = re.compile(r"(^|/)(\.venv|runs|site|dist|__pycache__|\.git)/")
TRIAL = """
from pathlib import Path
import gcpzoo
from PIL import Image
assert Path(gcpzoo.__file__).is_relative_to({prefix!r}), gcpzoo.__file__
assert gcpzoo.__version__ == {version!r}, gcpzoo.__version__
model = gcpzoo.load("resnet18_isqrt.digits")
image = Image.new("RGB", (32, 32), "gray")
image.save("image.png")
print(model(model.transform(image)[None]).argmax().item())
"""
COMMANDS = (
    ("list", "*.digits"),
    ("list", "--heads"),
    ("info", "resnet18_isqrt.digits"),
    ("predict", "--model", "resnet18_isqrt.digits", "image.png"),
    ("fit", "--config", "pretrain/digits.yaml", "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"),
)

TRIAL_OF_EXTRAS = """
import importlib, subprocess, sys
from urllib.request import urlopen
from gcpzoo.cli.main import EXTRAS
for module in (*EXTRAS, "mkdocs", "material", "mkdocstrings", "latex2mathml.converter"):
    importlib.import_module(module)
from gcpzoo.serve.page import opened
with opened(port=0) as url:
    assert b"gcpzoo" in urlopen(url).read()
serve = [sys.executable, "-m", "gcpzoo", "serve", "--model", "resnet18_isqrt.digits", "--port", "0"]
with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
    url = server.stdout.readline().split()[-1]
    print(urlopen(url + "/predict?top=1", data=open("image.png", "rb").read()).read())
    server.terminate()
"""
COMMANDS_OF_EXTRAS = (
    ("export", "--model", "resnet18_isqrt.digits", "--format", "onnx", "--output", "digits.onnx"),
    ("explain", "--model", "resnet18_isqrt.digits", "image.png", "--output", "explained"),
)


def project() -> dict[str, object]:
    """Read the table ``project`` of pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, object] = tomllib.load(file)["project"]
    return table


def lowest() -> list[str]:
    """Pin every requirement, those of the extras too, to the lowest version that pyproject.toml allows."""
    table = project()
    extras = {k: v for k, v in table["optional-dependencies"].items() if k not in ("all", "dev")}  # type: ignore[attr-defined]
    requirements = [*table["dependencies"], *(one for extra in extras.values() for one in extra)]  # type: ignore[misc]
    return [re.sub(r"(\[.*\])?>=([\d.]+).*", r"==\2", requirement) for requirement in requirements]


def run(*command: str | Path, folder: Path = ROOT) -> None:
    """Run a command, or stop with its output."""
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    text, start = " ".join(map(str, command)), time.perf_counter()
    print("$", text if len(text) < 200 else f"{text[:200]} …", end="", flush=True)
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=clean, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    print(f"   {time.perf_counter() - start:.0f} s", flush=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{text} ended with exit code {done.returncode}")


def build() -> tuple[Path, Path, str]:
    """Build both files, and give the wheel, the sdist and the version."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST)
    [wheel], [sdist] = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    version = wheel.name.split("-")[1]
    if sdist.name != f"gcpzoo-{version}.tar.gz":
        raise SystemExit(f"{wheel.name} and {sdist.name} must have the same version")
    return wheel, sdist, version


def check_contents(names: Sequence[str], wanted: Sequence[str], file: str) -> None:
    """Stop where a file lacks something, or holds what must not be published.

    >>> check_contents(["gcpzoo/a.py", "runs/b"], ["gcpzoo/"], "x.whl")
    Traceback (most recent call last):
    SystemExit: x.whl must not hold runs/b
    """
    for part in wanted:
        if not any(name.startswith(part) for name in names):
            raise SystemExit(f"{file} lacks {part}")
    for name in names:
        if NOT_IN_EITHER.search(name):
            raise SystemExit(f"{file} must not hold {name}")


def look_into(wheel: Path, sdist: Path) -> None:
    """Check what both files hold, and print their sizes."""
    check_contents(zipfile.ZipFile(wheel).namelist(), IN_WHEEL, wheel.name)
    with tarfile.open(sdist) as archive:
        names = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
    check_contents(names, IN_SDIST, sdist.name)
    for path in (wheel, sdist):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")


def try_out(file: Path, version: str, kind: str, extras: Sequence[str], dry: bool) -> None:
    """Install a file into a new environment and use it outside the checkout."""
    with tempfile.TemporaryDirectory() as name:
        folder, elsewhere = Path(name), Path(name) / "elsewhere"
        elsewhere.mkdir()
        venv.create(folder / "environment", with_pip=True)
        python = folder / "environment" / "bin" / "python"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pins: list[str | Path] = []
        if kind == "lowest":
            (folder / "lowest.txt").write_text("\n".join(lowest()), encoding="utf-8")
            pins = ["--constraint", folder / "lowest.txt"]
        if dry:
            [packages] = (folder / "environment").glob("lib/*/site-packages")
            (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
            run(*pip, "--no-deps", file)
        else:
            run(*pip, *pins, file)
        run(python, "-c", TRIAL.format(prefix=name, version=version), folder=elsewhere)
        for command in COMMANDS:
            run(python.with_name("gcpzoo"), *command, folder=elsewhere)
        for extra in () if dry else extras:
            run(*pip, "--dry-run", *pins, f"gcpzoo[{extra}] @ {file.as_uri()}")
        if "all" in extras and file.suffix == ".whl" and not dry:
            run(*pip, *pins, f"gcpzoo[all] @ {file.as_uri()}")
            run(python, "-c", TRIAL_OF_EXTRAS, folder=elsewhere)
            for command in COMMANDS_OF_EXTRAS:
                run(python.with_name("gcpzoo"), *command, folder=elsewhere)
    print(f"{file.name} works with {'this environment’s' if dry else f'the {kind}'} dependencies", flush=True)


def main() -> None:
    """Build, look, try."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="+", choices=("wheel", "sdist"), default=("wheel", "sdist"))
    parser.add_argument("--versions", nargs="+", choices=("newest", "lowest"), default=("newest", "lowest"))
    parser.add_argument("--extras", nargs="*", default=("serve", "export", "docs", "dev", "all"), help="to resolve")
    parser.add_argument("--dry", action="store_true", help="install no dependencies, borrow those of this environment")
    parser.add_argument("--lowest", action="store_true", help="only print the lowest versions")
    args = parser.parse_args()
    if args.lowest:
        print("\n".join(lowest()))
        return
    wheel, sdist, version = build()
    look_into(wheel, sdist)
    for kind in ("newest",) if args.dry else args.versions:
        for file in args.files:
            try_out({"wheel": wheel, "sdist": sdist}[file], version, kind, args.extras, args.dry)
    if not project().get("urls"):
        print("before an upload: pyproject.toml has no project.urls yet; add Repository and Documentation")


if __name__ == "__main__":
    main()
