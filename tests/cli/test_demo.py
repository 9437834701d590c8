"""``gcpzoo demo``: commands one after another; the first that fails ends it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from gcpzoo.cli import demo, few_images
from gcpzoo.errors import ZooError
from gcpzoo.experiments.statistics import paired_difference
from gcpzoo.hub.records import get_record

HISTORY = [{"epoch": 0, "train/loss": 1.0, "val/loss": 0.9, "train/top1": 0.5, "val/top1": 0.6}]


class Commands:
    """Stands in for the command line: remembers what is run, leaves a run's files, and fails where it is told to."""

    def __init__(self, fails: str = "", code: int = 0, top1: float | None = None) -> None:
        self.fails, self.code, self.ran = fails, code, []
        self.top1 = demo.get_record(demo.PRETRAINED).metrics["top1"] / 100 if top1 is None else top1

    def __call__(self, arguments: list[str]) -> int:
        self.ran.append(arguments)
        if self.fails and self.fails in arguments:
            return self.code
        if "--output" in arguments:
            folder = Path(arguments[arguments.index("--output") + 1])
            folder.mkdir()
            top1 = self.top1 - 2 / 360 * ("gap" in arguments)
            test = {"top1": top1, "top5": 0.9, "per_class": 0.7, "loss": 0.5, "images": 360}
            fit = {"history": HISTORY, "seconds": 3.0, "loss": "cross-entropy"}
            report = {"fit": fit, "test": test, "parameters": 1000}
            (folder / "metrics.json").write_text(json.dumps(report))
            (folder / "spectrum.json").write_text(json.dumps({"covariance": [1.0, 0.1]}))
            (folder / "confusion_matrix.png").write_bytes(b"png")
        return 0


def run(commands: Commands, data: str | None = None, epochs: int | None = None) -> int:
    return demo.run(argparse.Namespace(data=data, output="demo", epochs=epochs, run_command=commands))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "few_images", lambda folder, say: {"stood in for": str(folder)})


@pytest.mark.parametrize("code", [130, 2, 1])
@pytest.mark.parametrize(("fails", "ran"), [("*.digits", 1), ("test", 3), ("isqrt", 4), ("gap", 5)])
def test_a_command_that_fails_or_is_interrupted_ends_the_demo_with_its_code(fails: str, ran: int, code: int) -> None:
    commands = Commands(fails, code)
    assert run(commands) == code
    assert len(commands.ran) == ran
    assert not Path("demo/training_curves.png").exists()


def test_the_demo_runs_the_head_and_its_control_and_compares_them(capsys: pytest.CaptureFixture[str]) -> None:
    commands = Commands()
    assert run(commands, epochs=7) == 0
    fits = [c for c in commands.ran if c[0] == "fit"]
    assert [c[c.index("--model.head") + 1] for c in fits] == ["isqrt", "gap"]
    assert all(c[c.index("--config") + 1] == "finetune/digits.yaml" for c in fits)
    assert all(c[c.index("--trainer.max_epochs") + 1] == "7" for c in fits)
    out = capsys.readouterr().out
    assert "equal" in out
    top1 = f"{100 * commands.top1:.2f}"
    row = next(line for line in out.splitlines() if line.split()[:1] == ["isqrt"])
    assert row.split() == ["isqrt", top1, "90.00", "70.00", "0.500", "1,000", "3"]
    written = json.loads(Path("demo/demo.json").read_text())
    assert set(written["runs"]) == {"isqrt", "gap"}
    assert written["few_images"] == {"stood in for": "demo"}
    assert "isqrt is ahead by 2 of 360 test digits" in out
    for plot in ("training_curves.png", "covariance_spectrum.png", "confusion_matrix.png"):
        assert Path("demo", plot).is_file()


def test_ones_own_images_are_trained_by_the_config_for_them() -> None:
    Path("mine").mkdir()
    commands = Commands()
    assert run(commands, data="mine") == 0
    assert not [c for c in commands.ran if c[0] == "test"]
    assert "few_images" not in json.loads(Path("demo/demo.json").read_text())
    fit = next(c for c in commands.ran if c[0] == "fit")
    assert fit[fit.index("--config") + 1] == "finetune/images.yaml"
    assert fit[fit.index("--data.root") + 1] == "mine"


def test_a_model_that_does_not_reproduce_its_record_ends_the_demo() -> None:
    recorded = Commands().top1
    assert run(Commands(top1=recorded + 0.00004)) == 0  # half of the last digit that is printed
    with pytest.raises(ZooError, match="does not reproduce its record"):
        run(Commands(top1=recorded - 0.0001))


def test_few_images_are_learned_from_with_every_head_and_shown_as_they_come(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_images, "SIDE", 8)  # for speed
    monkeypatch.setattr(few_images, "TRUNKS", {"random": "random weights"})
    found = few_images.few_images(Path(), demo.say, shots=(1, 5), draws=3)
    out = capsys.readouterr().out
    for trunk in few_images.TRUNKS:
        assert f"{trunk}: " in out
        gap, isqrt = (found[trunk][head][5] for head in ("gap", "isqrt"))
        assert 0.1 < min(gap.values()) < max(isqrt.values()) < 1
        difference = paired_difference(isqrt, gap)
        row = next(line for line in out.partition(f"{trunk}: ")[2].splitlines() if line.split()[:1] == ["5"])
        assert f"{100 * difference.mean:+.2f} ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})" in row
    assert "prefers-color-scheme:dark" in Path("few_images.svg").read_text()


def test_a_head_that_loses_is_said_to_be_behind(capsys: pytest.CaptureFixture[str]) -> None:
    gap = {0: 0.8, 1: 0.81, 2: 0.79}
    worse, close = ({draw: share - less for draw, share in gap.items()} for less in (0.1, 0.0))
    few_images._show("random", {"gap": {5: gap}, "isqrt": {5: worse}, "both": {5: close}}, demo.say)
    out = capsys.readouterr().out
    assert "isqrt against gap: behind with 5 digits a class." in out
    assert "both against gap: undecided with 5 digits a class." in out


def test_the_trunks_are_the_same_for_every_head_and_none_is_of_a_covariance_head() -> None:
    for trunk in few_images.TRUNKS:
        one, other = (few_images.network(trunk, head).backbone.state_dict() for head in ("gap", "isqrt"))
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert {"conv1", "bn1", "layer1"} <= set(get_record(few_images.WHERE).recipe.replace(",", "").split())
    assert not [key for key in one if not key.startswith(("conv1.", "bn1.", "layer1."))]
