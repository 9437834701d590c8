"""Bad files and bad options: images, folders, checkpoints, configs, numbers that are not finite."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from commands import FIT, MODEL, QUIET, Fault, last, run, verdict
from PIL import Image

from gcpzoo.training.checkpoints import check_finite

SUFFIXES = ("jpg", "png", "webp", "bmp", "gif", "tiff")


def image_folder(root: Path, count: int = 8) -> Path:
    """Write a folder of three classes of noise."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog", "fox"):
            for i in range(count):
                path = root / split / name / f"{i}.{SUFFIXES[i % len(SUFFIXES)]}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return root


def damaged_images(scratch: Path, count: int, seed: int) -> Iterator[Fault]:
    """Damage many images of one folder: ``check-data`` and ``fit`` name each, ``--skip-corrupt`` goes on without."""
    rng = random.Random(seed)
    root = image_folder(scratch / "images", 40)
    victims = rng.sample(sorted(root.rglob("*.*")), count)
    for i, path in enumerate(victims):
        content = path.read_bytes()
        path.write_bytes((b"", b"\0" * len(content), content[: len(content) // 3], b"text")[i % 4])
    report = run("check-data", root, "--json")
    fit = ["fit", "--data", "ImageFolder", "--data.root", root, "--data.image_size", "32", "--data.workers", "0"]
    fit += [*MODEL, *QUIET, "--trainer.max_epochs", "1", "--output"]
    stopped, skipped = run(*fit, scratch / "stop"), run(*fit, scratch / "skip", "--skip-corrupt")
    wrong = verdict(skipped, 0) or verdict(stopped, 2, "cannot be read")
    left_out = "" if wrong else json.dumps(json.loads((scratch / "skip" / "metrics.json").read_text())["data"])
    for path in victims:
        name = str(path.relative_to(root))
        lost = wrong or ("" if name in report.text else "check-data does not name it")
        lost = lost or ("" if report.code == 1 else f"check-data: exit code {report.code}")
        lost = lost or ("" if name in stopped.text else "fit does not name it")
        yield Fault("image damaged", name, lost or ("" if name in left_out else "metrics.json does not name it"))


def _two_spellings(root: Path) -> None:
    for name in ("caf\u00e9", "cafe\u0301"):
        shutil.copytree(root / CAT, root / "train" / name)


CAT = Path("train", "cat")
DISORDER: dict[str, Callable[[Path], Any]] = {
    "loop": lambda root: (root / CAT / "again").symlink_to(root / CAT),
    "link to a folder above": lambda root: (root / CAT / "up").symlink_to(root),
    "pipe": lambda root: os.mkfifo(root / CAT / "pipe.jpg"),
    "folder x.jpg": lambda root: (root / CAT / "x.jpg").mkdir(),
    "hidden folder": lambda root: shutil.copytree(root / CAT, root / "train" / ".cat"),
    "empty class": lambda root: (root / "train" / "yak").mkdir(),
    "one file in two splits": lambda root: os.link(root / CAT / "0.jpg", root / "test" / "cat" / "same.jpg"),
    "one content in two splits": lambda root: shutil.copy(root / CAT / "0.jpg", root / "test" / "cat" / "copy.jpg"),
    "one content in two classes": lambda root: shutil.copy(root / CAT / "0.jpg", root / "train" / "dog" / "copy.jpg"),
    "two spellings": _two_spellings,
    "unreadable folder": lambda root: (root / "train" / "dog").chmod(0),
    "huge image": lambda root: Image.new("1", (30000, 20000)).save(root / CAT / "huge.png"),
}


def dirty_folders(scratch: Path) -> Iterator[Fault]:
    """Make each kind of disorder in a folder of its own, and look at what ``check-data`` says."""
    for what, disturb in DISORDER.items():
        if what == "unreadable folder" and os.geteuid() == 0:
            continue  # root may read everything
        root = image_folder(scratch / "dirty")
        disturb(root)
        outcome = run("check-data", root)
        yield Fault("folder in disorder", what, verdict(outcome, 2 if outcome.code == 2 else 1), outcome.seconds)
        (root / "train" / "dog").chmod(0o755)
        shutil.rmtree(root)


OPTIONS: dict[str, tuple[list[Any], str]] = {
    "class of another package": (["--trainer.callbacks", "os.system"], "allow-import"),
    "class in JSON": (["--trainer.callbacks", '[{"class_path": "subprocess.Popen"}]'], "allow-import"),
    "function of torch that loads code": (["--trainer.logger", "torch.hub.load"], ""),
    "iterations 1e9": (["--model.head_args.iterations", "1000000000"], "iterations"),
    "a dim of 1e12": (["--model.dim", "1000000000000"], ""),
    "a million hidden layers": (["--model.hidden", str([8] * 5000)], ""),
    "lr NaN": (["--model.optimizer.lr", "nan"], "lr must be"),
    "lr -1": (["--model.optimizer.lr", "-1"], "lr must be"),
    "batch size 0": (["--data.batch_size", "0"], "batch_size must be"),
    "unknown head": (["--model.head", "isqr"], "did you mean"),
    "unknown option": (["--model.hed", "isqrt"], "unknown option"),
    "unknown backbone": (["--model.backbone", "resnet19"], "resnet18"),
    "folder that is not there": (["--model.backbone_weights", "/nowhere/x.pth"], "/nowhere/x.pth"),
    "devices 1000": (["--trainer.devices", "1000"], "trainer.devices"),
    "every_minutes -1": (["--checkpoint.every_minutes", "-1"], "every_minutes must be"),
    "resume by another rate": (["--resume", "--model.optimizer.lr", "0.5"], "model.optimizer.lr"),
    "resume by another seed": (["--resume", "--seed_everything", "5"], "seed_everything"),
    "no resume into a run": ([], "holds a run already"),
}


def bad_options(reference: Path, scratch: Path) -> Iterator[Fault]:
    """Give a training options that cannot work; the run in the folder stays as it was."""
    for what, (options, words) in OPTIONS.items():
        folder = reference if "resume" in what else scratch / "options"
        before = last(reference).stat().st_mtime_ns
        outcome = run(*FIT, *options, "--output", folder)
        lost = verdict(outcome, 2, *([words] if words else []))
        if last(reference).stat().st_mtime_ns != before:
            lost = "the run's checkpoint was touched"
        yield Fault("option that cannot work", what, lost, outcome.seconds)


def bad_files(reference: Path, scratch: Path, seed: int) -> Iterator[Fault]:
    """Hand damaged or foreign files to the commands that take files."""
    rng = random.Random(seed)
    whole = last(reference).read_bytes()
    for i in range(16):
        path = scratch / "bad.ckpt"
        what = ("truncated", "noise", "text", "empty")[i % 4]
        path.write_bytes(
            {"truncated": whole[: rng.randrange(1, len(whole))], "noise": rng.randbytes(5000), "text": b"hello\n"}.get(
                what, b""
            )
        )
        command = (["info", path], ["predict", "--model", path, path])
        command += (["convert", path, "--source", "fast_mpn_cov", "--arch", "resnet18", "--output", scratch / "o"],)
        command += (["test", "--data", "Digits", "--ckpt_path", path, *QUIET],)
        chosen = command[i // 4]
        outcome = run(*chosen, cwd=scratch)
        yield Fault("file that cannot be opened", f"{chosen[0]}: {what}", verdict(outcome, 2), outcome.seconds)
    aliases = [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    for what, text in {
        "aliases that double 40 times": "\n".join(["a0: &a0 [x, x]", *aliases]),
        "nested 100,000 times": "[" * 100_000,
        "not UTF-8": None,
        "a list": "- 1\n",
        "a class of another package": "trainer:\n  callbacks:\n  - class_path: os.system\n",
    }.items():
        path = scratch / "bad.yaml"
        path.write_bytes(b"\xff\xfe\x00" if text is None else text.encode())
        outcome = run(*FIT, "--config", path, "--output", scratch / "options")
        yield Fault("config that cannot be used", what, verdict(outcome, 2), outcome.seconds)


def not_finite(scratch: Path) -> Iterator[Fault]:
    """Train at a rate that makes the weights overflow; a checkpoint from before stays."""
    for head in ("isqrt", "mpn_cov", "bcnn", "gap", "dropcov", "svd_pade"):
        folder = scratch / f"overflow-{head}"
        outcome = run(*FIT, "--model.head", head, "--model.optimizer.lr", "1e6", "--output", folder)
        lost = verdict(outcome, 2, "not finite")
        for path in (folder / "checkpoints").glob("*.ckpt"):
            try:
                check_finite(torch.load(path))
            except ValueError as error:
                lost = f"{path.name}: {error}"
        yield Fault("weights overflow", head, lost, outcome.seconds)
        shutil.rmtree(folder, ignore_errors=True)
