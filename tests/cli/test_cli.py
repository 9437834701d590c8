"""The command line, as a user types it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import gcpzoo

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_folder(cli: Cli, small_fit: list[str], tmp_path: Path) -> Path:
    code, _, err = cli(*small_fit, "--output", "run")
    assert code == 0, err
    return tmp_path / "run"


def test_fit_leaves_config_figures_plots_and_checkpoint(run_folder: Path) -> None:
    names = {p.name for p in run_folder.iterdir()}
    assert {"config.yaml", "metrics.json", "metrics.csv", "training_curves.png", "confusion_matrix.png"} <= names
    assert {"covariance_spectrum.png", "spectrum.json"} <= names
    assert any(n.startswith("events.out.tfevents") for n in names)
    assert (run_folder / "checkpoints" / "last.ckpt").is_file()
    report = json.loads((run_folder / "metrics.json").read_text())
    assert report["fit"]["epochs"] == 2
    assert [row["epoch"] for row in report["fit"]["history"]] == [0, 1]
    assert report["test"]["images"] == 9
    assert set(report["test"]["accuracy_of_class"]) == {"north", "east", "south"}
    assert (report["seed"], report["model"]["head"]) == (0, "isqrt")
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["model"]["dim"] == 8


def test_the_same_seed_gives_the_same_figures(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    cli(*small_fit, "--output", "again")
    first, second = (json.loads((f / "metrics.json").read_text()) for f in (run_folder, run_folder.parent / "again"))
    assert first["fit"]["history"] == second["fit"]["history"]


def test_a_checkpoint_is_evaluated_and_resumed(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    data = small_fit[1:9]
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    before = json.loads((run_folder / "metrics.json").read_text())
    for command in ("test", "validate"):
        code, out, err = cli(command, *data, "--ckpt_path", ckpt, "--output", "evaluated")
        assert (code, err.count("error")) == (0, 0)
        assert f"{command} after epoch 2: top-1" in out
    again = json.loads(Path("evaluated/metrics.json").read_text())
    assert again["test"]["top1"] == before["test"]["top1"]
    assert again["validate"]["top1"] == before["fit"]["history"][-1]["val/top1"]
    code, _, err = cli(
        *small_fit[:-4], "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu", "--ckpt_path", ckpt
    )
    assert code == 0, err
    resumed = json.loads((run_folder / "metrics.json").read_text())
    assert [row["epoch"] for row in resumed["fit"]["history"]] == [0, 1, 2]


STOPPED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
from gcpzoo.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_says_how_to_go_on(
    stop: signal.Signals, code: int, small_fit: list[str], tmp_path: Path
) -> None:
    ckpt = tmp_path / "run" / "checkpoints" / "last.ckpt"
    arguments = [*small_fit[:-4], "--trainer.max_epochs", "5000", "--trainer.accelerator", "cpu", "--output", "run"]
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(600):
                time.sleep(0.1)
                if ckpt.exists() or process.poll() is not None:
                    break
            process.send_signal(stop)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code, err
    assert b"--ckpt_path run/checkpoints/last.ckpt goes on after its last epoch" in err


def test_views_are_averaged_at_the_test(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    for views in ("mirror", "ten_crop"):
        code, out, err = cli("test", *small_fit[1:9], "--data.views", views, "--ckpt_path", ckpt, "--output", views)
        assert code == 0, err
        assert "test after epoch 2: top-1" in out


def test_images_are_predicted_with_class_names(cli: Cli, folder: Path, run_folder: Path) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    image = folder / "test" / "north" / "0.png"
    code, out, _ = cli("predict", "--model", ckpt, image, "--top", 2)
    assert code == 0
    assert out.splitlines()[0] == str(image)
    assert sum(name in out for name in (" north", " east", " south")) == 2
    code, out, _ = cli("predict", "--model", ckpt, folder / "test", "--json")
    results = json.loads(out)
    assert len(results) == 9
    assert sum(c["probability"] for c in results[0]["classes"]) == pytest.approx(1, abs=1e-3)


def test_a_data_module_is_predicted_into_a_table(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    code, _, err = cli("predict", *small_fit[1:9], "--ckpt_path", ckpt, "--output", "predicted")
    assert code == 0, err
    assert len(Path("predicted/predictions.csv").read_text().splitlines()) == 1 + 9


def test_a_model_of_the_zoo_is_trained_further_with_other_classes(
    cli: Cli, small_fit: list[str], folder: Path, tmp_path: Path
) -> None:
    gcpzoo.hub.save_local(gcpzoo.create_model("resnet18", "isqrt", 7, dim=8, until="layer1"), tmp_path / "start")
    code, _, err = cli(
        *small_fit[:10], "32", "--model", tmp_path / "start", "--trainer.max_epochs", "1", "--output", "o"
    )
    assert code == 0, err
    assert gcpzoo.load(tmp_path / "o" / "checkpoints" / "last.ckpt").num_classes == 3


def test_a_backbone_is_taken_from_a_model_of_the_zoo(cli: Cli, small_fit: list[str], tmp_path: Path) -> None:
    model = gcpzoo.create_model("resnet18", "gap", 7)
    gcpzoo.hub.save_local(model, tmp_path / "start")
    arguments = [*small_fit, "--model.backbone_weights", tmp_path / "start", "--model.frozen", "[conv1,bn1]"]
    code, _, err = cli(*arguments, "--output", "o")
    assert code == 0, err
    trained = gcpzoo.load(tmp_path / "o" / "checkpoints" / "last.ckpt")
    assert torch.equal(trained.backbone.conv1.weight, model.backbone.conv1.weight)


def test_list_shows_models_heads_and_backbones(cli: Cli) -> None:
    code, out, _ = cli("list")
    assert code == 0
    assert all(name in out for name in gcpzoo.list_models())
    assert [row["name"] for row in json.loads(cli("list", "--heads", "--json")[1])] == gcpzoo.list_heads()
    assert "resnet50" in cli("list", "--backbones")[1].split()
    assert {r["name"] for r in json.loads(cli("list", "resnet18_*", "--json")[1])} == set(
        gcpzoo.list_models("resnet18_*")
    )


def test_info_counts_parameters_and_operations(cli: Cli) -> None:
    code, out, err = cli("info", "resnet18_isqrt")
    assert code == 0, err
    assert "backbone" in out
    assert "head" in out


def test_output_folders_are_numbered_and_never_overwritten(cli: Cli, small_fit: list[str]) -> None:
    quick = [*small_fit, "--trainer.limit_train_batches", "1", "--evaluate", "false"]
    for name in ("resnet18_isqrt", "resnet18_isqrt-2"):
        assert cli(*quick)[0] == 0
        assert Path("runs", name, "metrics.json").is_file()
    code, _, err = cli(*quick, "--output", "runs/resnet18_isqrt")
    assert code == 2
    assert "holds a run already" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.hed", "gap"], "unknown option 'model.hed': did you mean model.head"),
        (["--model.head", "isqr"], "unknown head 'isqr': did you mean isqrt"),
        (["--model.backbone", "resnet19"], "unknown backbone 'resnet19': did you mean resnet1"),
        (["--model.head_args.iteration", "3"], "did you mean iterations"),
        (["--model.optimizer.name", "sdg"], "unknown optimizer 'sdg'"),
        (["--model.schedule.name", "cosin"], "cosine"),
        (["--model.optimizer.lr", "fast"], "optimizer"),
        (["--model.backbone_weights", "absent.pth"], "no file 'absent.pth'"),
        (["--model.backbone_weights", "resnet18_isqrt.digitz"], "unknown model"),
        (["--trainer.max_epohcs", "3"], "did you mean trainer.max_epochs"),
        (["--config", "absent.yaml"], "unknown config file 'absent.yaml'"),
        (["--ckpt_path", "absent.ckpt"], "no checkpoint 'absent.ckpt'"),
        (["--ckpt_path", "last"], "no checkpoint 'last'; give the file"),
        (["--model.dim", "99999999999999"], "out of memory (for 25599999999999744 bytes more)"),
        (["--model.cutmix_alpha", "1e-300"], "cutmix_alpha must be 0 or at least 0.001"),
        (["--model.optimizer.lrr", "1"], "did you mean model.optimizer.lr"),
        (["--seed_everything", "-5"], "-5 is not in bounds"),
        (["--data.root", "absent"], "there is no folder absent"),
        (["--data.rot", "x"], "unknown option 'data.rot': did you mean data.root"),
        (["--data.augment.crop", "foo"], "augment.crop"),
        (["--data.preprocessing.crp", "3"], "did you mean data.preprocessing.crop"),
        (["--data", "ImageFolders"], "unknown data module 'ImageFolders': did you mean ImageFolder"),
        (["--model", "resnet18_isqrt.digitz"], "unknown model"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    cli: Cli, small_fit: list[str], arguments: list[str], message: str
) -> None:
    code, _, err = cli(*small_fit, *arguments)
    lines = [line for line in err.splitlines() if "error" in line]
    assert code == 2
    assert "Traceback" not in err
    assert len(lines) == 1
    assert message in lines[0]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "invalid choice: 'lst'"),
        (["list", "xyz*"], "no model matches"),
        (["list", "--heads", "xyz*"], "no name matches 'xyz*'"),
        (["info", "resnt50_isqrt"], "did you mean resnet50"),
        (["predict", "--model", "nothing.here", "x.png"], "no image 'x.png'"),
        (["demo", "--data", "absent"], "there is no folder 'absent'"),
        (["fit"], "--data is missing"),
        (["search-hub"], "the Hub cannot be reached: its name is not known here"),
    ],
)
def test_a_mistake_in_the_zoos_commands_is_one_line_too(
    cli: Cli, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr("gcpzoo.hub.client.getproxies", dict)
    code, _, err = cli(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_an_unknown_key_in_a_config_file_is_named(cli: Cli, small_fit: list[str]) -> None:
    Path("mine.yaml").write_text("model:\n  hed: gap\n")
    code, _, err = cli(*small_fit, "--config", "mine.yaml")
    assert code == 2
    assert "hed" in err
    Path("broken.yaml").write_text("model: [\n")
    code, _, err = cli(*small_fit, "--config", "broken.yaml")
    assert code == 2
    assert "Traceback" not in err


def test_unreadable_images_are_named_and_counted(cli: Cli, folder: Path, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes((folder / "test" / "north" / "0.png").read_bytes()[:300])
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    code, out, err = cli("predict", "--model", ckpt, "bad.png", folder / "test" / "north" / "1.png")
    assert code == 2
    assert "1 of 2 images cannot be read: bad.png" in err
    assert "1.png" in out  # the good one is still answered


def test_one_position_is_refused_before_anything_is_trained(cli: Cli, small_fit: list[str]) -> None:
    arguments = [a for a in small_fit if a not in ("--model.until", "layer1")]
    code, _, err = cli(*arguments, "--model.last_stride", "2")
    assert code == 2
    assert "one position" in err


def test_an_evaluation_leaves_the_run_as_it_was(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    before = {p.name: p.read_bytes() for p in run_folder.iterdir() if p.suffix in (".json", ".csv", ".yaml")}
    code, _, err = cli("test", *small_fit[1:9], "--ckpt_path", run_folder / "checkpoints" / "last.ckpt")
    assert code == 0, err
    assert {p.name: p.read_bytes() for p in run_folder.iterdir() if p.name in before} == before
    assert Path("runs/run-test/metrics.json").is_file()


def test_a_model_is_evaluated_on_a_part_of_its_classes(
    cli: Cli, small_fit: list[str], run_folder: Path, folder: Path, tmp_path: Path
) -> None:
    for name in ("north", "south"):
        target = tmp_path / "part" / "test" / name
        target.mkdir(parents=True)
        for image in (folder / "test" / name).iterdir():
            (target / image.name).write_bytes(image.read_bytes())
    data = ["--data", "ImageFolder", "--data.root", tmp_path / "part", "--data.workers", 0]
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    for model in (["--ckpt_path", ckpt], ["--model", ckpt]):
        output = f"o{len(model[0])}"
        code, _, err = cli("test", *data, *model, "--output", output)
        assert code == 0, err
        whole = json.loads((run_folder / "metrics.json").read_text())["test"]["accuracy_of_class"]
        part = json.loads(Path(output, "metrics.json").read_text())["test"]["accuracy_of_class"]
        assert (part["north"], part["south"]) == (whole["north"], whole["south"])
    (tmp_path / "part" / "test" / "west").mkdir()
    code, _, err = cli("test", *data, "--ckpt_path", ckpt)
    assert code == 2
    assert "west" in err


def test_what_a_checkpoint_fixes_is_not_silently_ignored(cli: Cli, small_fit: list[str], run_folder: Path) -> None:
    ckpt = run_folder / "checkpoints" / "last.ckpt"
    code, _, err = cli(*small_fit, "--ckpt_path", ckpt, "--model.head", "gap")
    assert code == 2
    assert "trained with head='isqrt'" in err
    code, _, err = cli(*small_fit[:10], 32, "--model", ckpt, "--model.head", "gap")
    assert code == 2
    assert "brings its own architecture, head='isqrt'" in err
    code, _, err = cli("test", *small_fit[1:9])
    assert code == 2
    assert "which model?" in err


def test_the_precision_of_the_whole_network_can_be_chosen(cli: Cli, small_fit: list[str]) -> None:
    for precision in ("bf16-true", "64-true"):
        code, _, err = cli(*small_fit, "--trainer.precision", precision, "--output", precision)
        assert code == 0, err


def test_heads_and_backbones_are_listed_by_pattern(cli: Cli) -> None:
    assert [row["name"] for row in json.loads(cli("list", "--heads", "--json", "mp*")[1])] == ["mpa_lya", "mpn_cov"]
    assert cli("list", "--backbones", "resnet18*")[1].split() == ["resnet18"]
    assert "timm:resnet18d" in cli("list", "--timm", "*resnet18*")[1].split()
