"""Publishing to a Hub on this machine through the real client, and loading from it."""

from __future__ import annotations

import copy
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from huggingface_hub import hf_hub_download
from publications import ABOUT, published
from standin import Hub

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub import publish, search_hub
from gcpzoo.hub.run_checkpoint import describe_run
from gcpzoo.training.network import build_network


class TestRoundTrip:
    def test_weights_and_logits_come_back_bit_by_bit(self, hub: Hub, small, image):
        done = published(small)
        model = gcpzoo.load("hf-hub:owner/animals")
        for (key, ours), theirs in zip(small.state_dict().items(), model.state_dict().values()):
            assert torch.equal(ours, theirs), key
        with torch.inference_mode():
            assert torch.equal(model(image), small(image))
        assert not model.training
        assert model.class_names == small.class_names
        assert model.preprocessing == small.preprocessing
        assert model.config == small.config
        assert model.record.metrics == ABOUT["metrics"]
        assert model.record.source == {"repo": "owner/animals", "revision": done.commit}

    def test_only_these_files_travel(self, hub: Hub, small):
        done = published(small)
        assert set(hub.repos["owner/animals"].files(done.commit)) == {
            ".gitattributes", "README.md", "config.json", "model.safetensors",
        }  # fmt: skip

    def test_the_printed_line_loads_that_commit(self, hub: Hub, small, image):
        done = published(small)
        hub.seed("owner/animals", {"config.json": b"{}"})
        assert done.line == f'gcpzoo.load("hf-hub:owner/animals@{done.commit}")'
        with torch.inference_mode():
            assert torch.equal(gcpzoo.load(f"hf-hub:owner/animals@{done.commit}")(image), small(image))

    def test_loading_leaves_the_random_state_alone(self, hub: Hub, small):
        published(small)
        before = torch.random.get_rng_state()
        gcpzoo.load("hf-hub:owner/animals")
        assert torch.equal(before, torch.random.get_rng_state())

    def test_xet_moves_the_same_bits(self, tmp_path, connect, small, image):
        hub = Hub(tmp_path / "hub", xet=True)
        hub.add_user("owner", "hf_owner")
        connect(hub)
        try:
            published(small)
            entry = hub.repos["owner/animals"].files("main")["model.safetensors"]
            assert entry.xet
            with torch.inference_mode():
                assert torch.equal(gcpzoo.load("hf-hub:owner/animals")(image), small(image))
        finally:
            hub.stop()


class TestCommits:
    def test_unchanged_content_makes_no_commit(self, hub: Hub, small):
        first, second = published(small), published(small)
        assert second.commit == first.commit
        assert second.files == ()
        assert len(hub.repos["owner/animals"].commits) == 2  # the Hub's own first one, and ours

    def test_only_changed_files_are_sent(self, hub: Hub, small):
        published(small)
        done = publish(small, "owner/animals", licence="mit", about=ABOUT)
        assert done.files == ("README.md", "config.json")

    def test_a_concurrent_commit_is_not_overwritten(self, hub: Hub, small):
        published(small)
        theirs = []

        def interfere(method: str, path: str) -> None:
            if "/preupload/" in path and not theirs:
                theirs.append(hub.seed("owner/animals", {"notes.txt": b"theirs"}))

        hub.faults.append(interfere)
        with pytest.raises(ZooError, match="somebody else committed in the meantime"):
            publish(small, "owner/animals", licence="mit")
        assert hub.repos["owner/animals"].branches["main"] == theirs[0]

    def test_of_concurrent_publishers_one_wins_and_the_repository_is_whole(self, hub: Hub, small, image):
        published(small)
        outcomes = []

        def one(licence: str) -> None:
            try:
                outcomes.append(publish(small, "owner/animals", licence=licence).commit)
            except ZooError as error:
                outcomes.append(str(error))

        threads = [threading.Thread(target=one, args=(name,)) for name in ("mit", "cc-by-4.0", "bsd-3-clause")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [o for o in outcomes if "in the meantime" in o]
        assert len(outcomes) == 3
        assert len(hub.repos["owner/animals"].commits) == 2 + 3 - len(refused)
        with torch.inference_mode():
            assert torch.equal(gcpzoo.load("hf-hub:owner/animals")(image), small(image))

    def test_a_tag_names_the_commit_once(self, hub: Hub, small):
        done = published(small, tag="v1.0")
        assert hub.repos["owner/animals"].tags == {"v1.0": done.commit}
        published(small, tag="v1.0")  # the same content under the same name is fine
        with pytest.raises(ZooError, match=r"has a tag 'v1\.0' already"):
            publish(small, "owner/animals", licence="mit", tag="v1.0")
        assert gcpzoo.load("hf-hub:owner/animals@v1.0").record.source["revision"] == done.commit

    def test_a_collection_is_made_and_filled(self, hub: Hub, small):
        published(small, collection="Animals of the zoo")
        (collection,) = hub.collections.values()
        assert collection["title"] == "Animals of the zoo"
        assert [item["id"] for item in collection["items"]] == ["owner/animals"]

    def test_dry_run_sends_nothing(self, hub: Hub, small):
        done = published(small, dry_run=True)
        assert done.commit is None
        assert "library_name: gcpzoo" in done.card
        assert hub.log == []

    def test_private_stays_private(self, hub: Hub, small):
        published(small, private=True)
        assert hub.repos["owner/animals"].private
        published(small, "owner/open")
        with pytest.raises(ZooError, match="exists and is public"):
            published(small, "owner/open", private=True)


class TestRun:
    """Publishing straight from a training run's checkpoint."""

    @pytest.fixture
    def run(self, small, tmp_path) -> Path:
        """The output folder of a run: its checkpoint with EMA weights, resolved configuration and report."""
        folder = tmp_path / "run"
        (folder / "checkpoints").mkdir(parents=True)
        averaged = {f"model.{k}": v for k, v in small.state_dict().items()}
        checkpoint = {
            "state_dict": averaged,  # Lightning's WeightAveraging puts the averages here …
            "current_model_state": {k: torch.zeros_like(v) for k, v in averaged.items()},  # … and the others there
            "averaging_state": {"n_averaged": torch.tensor(5)},
            "hyper_parameters": {"lr": 0.1},
            "gcpzoo": {
                "config": small.config,
                "class_names": small.class_names,
                "preprocessing": small.preprocessing.to_dict(),
            },
        }
        torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
        (folder / "config.yaml").write_text("seed_everything: 3\n")
        report = {
            "model": small.config,
            "fit": {"epochs": 4},
            "data": {"data": "Animals", "images": {"train": 20, "test": 10}},
            "seed": 3,
            "hardware": "CPU, 2 threads",
            "test": {"top1": 0.9, "top5": 1.0, "per_class": 0.85},
        }
        (folder / "metrics.json").write_text(json.dumps(report))
        return folder

    def test_the_averaged_weights_the_configuration_and_the_results_travel(self, hub: Hub, run, small, image):
        done = publish(run / "checkpoints" / "last.ckpt", "owner/run", licence="mit")
        assert "training.yaml" in done.files
        model = gcpzoo.load("hf-hub:owner/run")
        with torch.inference_mode():
            assert torch.equal(model(image), small(image))
        assert model.class_names == small.class_names
        assert model.record.metrics == {"top1": 90.0, "top5": 100.0, "per_class": 85.0}
        assert model.record.seeds == [3]
        assert "Animals: 20 images (train), 10 images (test), measured on the test images" in done.card
        path = hf_hub_download("owner/run", "training.yaml")
        assert Path(path).read_text() == "seed_everything: 3\n"

    def test_test_results_win_over_validation_results(self, run):
        report = json.loads((run / "metrics.json").read_text())
        report["validate"] = {"top1": 0.5, "top5": 0.6, "per_class": 0.55}
        (run / "metrics.json").write_text(json.dumps(report))
        card = publish(run / "checkpoints" / "last.ckpt", "owner/run", dry_run=True).card
        assert "| Top-1 accuracy (%) | 90.00 |" in card
        assert "measured on the test images" in card
        assert "50.00" not in card

    def test_validation_results_are_called_so(self, run):
        report = json.loads((run / "metrics.json").read_text())
        report["validate"] = report.pop("test")
        (run / "metrics.json").write_text(json.dumps(report))
        card = publish(run / "checkpoints" / "last.ckpt", "owner/run", dry_run=True).card
        assert "| Top-1 accuracy (%) | 90.00 |" in card
        assert "| Mean per-class accuracy (%) | 85.00 |" in card
        assert "measured on the validation images" in card

    def test_a_run_of_a_comparison_stands_beside_its_control_on_the_same_images(self, run, tmp_path):
        report = json.loads((run / "metrics.json").read_text())
        run.rename(tmp_path / "gcp")
        control = tmp_path / "gap" / "metrics.json"
        control.parent.mkdir()
        other = {**report, "model": {"head": "gap"}, "test": {**report["test"], "top1": 0.8}}
        control.write_text(json.dumps(other))
        (tmp_path / "comparison.json").write_text("{}")
        card = publish(tmp_path / "gcp", "owner/run", dry_run=True).card
        assert "| Top-1 accuracy (%) | 90.00 | 80.00 |" in card
        control.write_text(json.dumps({**other, "data": {**report["data"], "seed": 1}}))
        assert "| Top-1 accuracy (%) | 90.00 | – |" in publish(tmp_path / "gcp", "owner/run", dry_run=True).card

    def test_results_are_those_of_the_last_epoch_only(self, run):
        (run / "checkpoints" / "last.ckpt").rename(run / "checkpoints" / "epoch=1.ckpt")
        assert "Top-1" not in publish(run / "checkpoints" / "epoch=1.ckpt", "owner/run", dry_run=True).card

    @pytest.mark.parametrize(
        ("key", "value"), [("num_classes", 7), ("head", "gap"), ("backbone", "resnet34"), ("dim", 3)]
    )
    def test_a_report_of_another_model_is_refused(self, run, key, value):
        report = json.loads((run / "metrics.json").read_text())
        report["model"][key] = value
        (run / "metrics.json").write_text(json.dumps(report))
        with pytest.raises(ZooError, match=rf"metrics\.json is of another model: its {key} is {value!r}"):
            publish(run / "checkpoints" / "last.ckpt", "owner/run", dry_run=True)

    def test_figures_that_are_not_finite_are_left_out(self, run):
        report = json.loads((run / "metrics.json").read_text())
        report["test"] = {"loss": None, "top1": None, "top5": 1.0, "per_class": None}
        (run / "metrics.json").write_text(json.dumps(report))
        card = publish(run / "checkpoints" / "last.ckpt", "owner/run", dry_run=True).card
        assert "| Top-5 accuracy (%) | 100.00 |" in card
        assert "Top-1" not in card
        report["test"] = dict.fromkeys(report["test"])
        (run / "metrics.json").write_text(json.dumps(report))
        card = publish(run / "checkpoints" / "last.ckpt", "owner/run", dry_run=True).card
        assert "accuracy (%)" not in card
        assert "measured" not in card

    def test_one_epoch_is_singular(self, run):
        report = json.loads((run / "metrics.json").read_text())
        report["fit"]["epochs"] = 1
        (run / "metrics.json").write_text(json.dumps(report))
        card = publish(run / "checkpoints" / "last.ckpt", "owner/run", dry_run=True).card
        assert "1 epoch; every setting" in card

    @pytest.mark.parametrize("text", ["[]", "{}", '{"model": 3}', '{"model": {}, "fit": 3, "data": {}}', "{"])
    def test_a_file_that_is_not_a_report_is_refused(self, run, text):
        (run / "metrics.json").write_text(text)
        with pytest.raises(ZooError, match="is not a report of 'gcpzoo fit'"):
            publish(run / "checkpoints" / "last.ckpt", "owner/run", dry_run=True)

    def test_a_run_of_the_first_format_is_published_with_its_results(self, tmp_path):
        old = Path(__file__).parents[1] / "files" / "format1"
        (tmp_path / "checkpoints").mkdir()
        shutil.copy(old / "last.ckpt", tmp_path / "checkpoints")
        shutil.copy(old / "metrics.json", tmp_path)
        card = publish(tmp_path / "checkpoints" / "last.ckpt", "owner/run", dry_run=True).card
        assert "ImageFolder: 18 images (train), 6 images (val), 9 images (test), measured on the test images" in card
        assert "| Top-1 accuracy (%) | 66.67 |" in card

    def test_checkpoints_of_other_programs_are_refused(self, tmp_path):
        torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
        with pytest.raises(ZooError, match="was not written by 'gcpzoo fit'"):
            publish(tmp_path / "last.ckpt", "owner/run", dry_run=True)


def test_search_finds_what_was_published(hub: Hub, small):
    published(small)
    hub.seed("owner/foreign", {"config.json": b"{}"})
    assert [m["repo"] for m in search_hub()] == ["owner/animals"]
    assert search_hub("nothing of this name") == []
    published(small, "owner/flowers")
    assert [m["repo"] for m in search_hub("flow")] == ["owner/flowers"]
    assert [m["repo"] for m in search_hub(author="owner")] == ["owner/animals", "owner/flowers"]
    assert search_hub(author="visitor") == []
    assert len(search_hub(limit=1)) == 1


def test_weights_without_a_licence_are_not_published(hub: Hub, small):
    model = copy.copy(small)
    model.record = gcpzoo.hub.get_record("resnet18_isqrt.in1k_wang2020_lrnorm")
    with pytest.raises(ZooError, match="may not be published: its authors state no licence"):
        publish(model, "owner/animals")


def test_the_configuration_says_all_that_loading_needs(hub: Hub, small):
    published(small)
    config = json.loads(Path(hf_hub_download("owner/animals", "config.json")).read_text())
    assert config["library"] == "gcpzoo"
    assert config["library_version"] == gcpzoo.__version__
    assert config["format_version"] == 1
    assert config["model"]["num_classes"] == 3
    assert config["class_names"] == small.class_names
    assert config["preprocessing"]["crop"] == 48


class TestLicences:
    """The licence of the model that a run started from."""

    @pytest.fixture
    def run(self, tmp_path, small):
        def write(start, licence):
            state = {f"model.{key}": value for key, value in small.state_dict().items()}
            path = tmp_path / "run" / "checkpoints" / "last.ckpt"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"state_dict": state, "gcpzoo": describe_run(small, start, licence)}, path)
            return path

        return write

    def test_it_and_the_base_travel_into_the_card(self, run):
        done = publish(run("hf-hub:owner/base@main", "cc-by-nc-4.0"), "owner/mine", dry_run=True)
        assert "license: cc-by-nc-4.0" in done.card
        assert "base_model: owner/base" in done.card
        assert "trained from hf-hub:owner/base@main" in done.card

    def test_another_licence_is_taken_with_a_warning(self, run):
        path = run("resnet18_isqrt.digits", "cc-by-nc-4.0")
        with pytest.warns(
            UserWarning, match="trained from resnet18_isqrt.digits, whose licence is 'cc-by-nc-4.0', and"
        ):
            done = publish(path, "owner/mine", licence="mit", dry_run=True)
        assert "license: mit" in done.card

    def test_the_same_licence_is_no_matter(self, run, recwarn):
        publish(run("resnet18_isqrt.digits", "Apache-2.0"), "owner/mine", licence="apache-2.0", dry_run=True)
        publish(run(None, None), "owner/mine", licence="mit", dry_run=True)
        assert not [w for w in recwarn if "licence" in str(w.message)]

    def test_a_run_keeps_that_of_the_model_it_started_from(self, run):
        path = run("resnet18_isqrt.digits", "cc-by-nc-4.0")
        network = {"backbone": "resnet18", "until": "layer1", "num_classes": 9}
        assert build_network(network, {}, backbone_weights=str(path)).licence == "cc-by-nc-4.0"
        assert build_network(network, {}, backbone_weights="resnet18_isqrt.digits").licence == "Apache-2.0"
