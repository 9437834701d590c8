"""``gcpzoo probe`` and ``gcpzoo report`` on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sweep_folder import write_sweep

Cli = Callable[..., tuple[int, str, str]]
MODEL = ("probe", "--model", "resnet18_isqrt.digits", "--batch-size", "90", "--cache", "kept")


def test_a_probe_says_what_it_measured_and_keeps_features(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli(*MODEL, "--data", "Digits", "--protocol", "knn", "--output", "probe.json")
    assert code == 0, err
    assert "train: 1,437 images of 10 classes, features computed" in out
    result = json.loads((tmp_path / "probe.json").read_text())
    assert (result["protocol"], result["images"], result["head"]) == ("knn", 360, "isqrt")
    assert f"top-1 {100 * result['top1']:.2f} ±" in out
    assert result["top1"] > 0.9
    code, out, _ = cli(*MODEL, "--data", "Digits", "--protocol", "few-shot", "--episodes", "20", "--shots", "5")
    assert code == 0
    assert "test: 360 images of 10 classes, features kept from before" in out
    assert "5-way 5-shot, 20 episodes: top-1" in out


def test_the_same_trunk_is_probed_with_another_head(cli: Cli, folder: Path) -> None:
    arguments = (*MODEL, "--data", folder, "--image-size", 32, "--protocol", "svm")
    code, out, err = cli(*arguments, "--head", "gap")
    assert code == 0, err
    assert "svm, 128 features, 9 test images" in out
    code, _, err = cli(*arguments, "--head", "cbpp")
    assert code == 2
    assert "unknown head 'cbpp'" in err
    code, _, err = cli(*MODEL, "--data", "nowhere")
    assert code == 2
    assert "there is no folder 'nowhere'" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--protocol", "ridge", "--shots", "5"], "--shots belongs to --protocol few-shot and has no effect on ridge"),
        (["--classifier", "prototype"], "--classifier belongs to --protocol few-shot and has no effect on linear"),
        (["--seed", "-1"], "seed must be from 0 to 4294967295, got -1"),
        (["--cache", "file"], "--cache must be a folder, got the file 'file'"),
        (["--output", "."], "--output must be a file, got the folder '.'"),
        (["--image-size", "0"], "--image-size must be at least 1, got 0"),
    ],
)
def test_what_a_probe_cannot_do_is_refused_before_the_model_is_loaded(
    cli: Cli, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    code, out, err = cli("probe", "--model", "nowhere", "--data", "nowhere", *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"gcpzoo: error: {message}")


def test_episodes_with_too_few_images_are_refused_before_features_are_computed(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli(*MODEL, "--data", "Digits", "--protocol", "few-shot", "--shots", 100)
    assert (code, out) == (2, "")
    assert "an episode needs 5 classes with 100 + 15 images (shots and queries), and 0 have so many" in err
    assert not (tmp_path / "kept").exists()


def test_a_report_is_written_with_the_control_of_the_sweep(cli: Cli, tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", {"gap": {0: 0.5, 1: 0.6}, "isqrt": {0: 0.75, 1: 0.85}})
    code, out, err = cli("report", sweep)
    assert code == 0, err
    assert (tmp_path / "report.html").is_file()
    assert "+25.00" in out
    (sweep / "sweep.json").write_text(json.dumps({"control": "isqrt"}))
    code, out, _ = cli("report", sweep, "--output", "a.md", "--output", "b.html")
    assert code == 0
    assert "-25.00" in out
    assert "written: a.md, b.html" in out
    code, _, err = cli("report", sweep, "--control", "bcnn")
    assert code == 2
    assert "unknown control 'bcnn'" in err


def test_sweeps_that_name_other_controls_need_one_to_be_chosen(cli: Cli, tmp_path: Path) -> None:
    heads = {"gap": {0: 0.5}, "isqrt": {0: 0.75}}
    sweeps = [write_sweep(tmp_path / control, heads, data=control) for control in heads]
    for folder in sweeps:
        (folder / "sweep.json").write_text(json.dumps({"control": folder.name}))
    code, _, err = cli("report", *sweeps)
    assert code == 2
    assert "the sweeps name different controls: gap (" in err
    assert cli("report", *sweeps, "--control", "isqrt")[0] == 0


@pytest.mark.parametrize("content", ["[]", "{"])
def test_a_damaged_sweep_json_is_named(cli: Cli, tmp_path: Path, content: str) -> None:
    sweep = write_sweep(tmp_path / "sweep", {"gap": {0: 0.5}})
    (sweep / "sweep.json").write_text(content)
    code, _, err = cli("report", sweep)
    assert code == 2
    assert "give --control" in err
