"""Model cards: what the Hub reads of them, what a new publication renews and what it keeps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, hf_hub_download
from publications import ABOUT, published
from standin import Hub

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub import publish
from gcpzoo.models.preprocessing import Preprocessing


@pytest.fixture(scope="session")
def control() -> gcpzoo.GCPNet:
    """A network with another head than the small model's."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = gcpzoo.create_model("resnet18", "gap", 3, until="layer1").eval()
    model.class_names = ["a cat", "a dog", "ein Fuß"]
    model.preprocessing = Preprocessing(resize=64, crop=48)
    return model


class TestCard:
    def test_the_hub_accepts_its_metadata(self, hub: Hub, small):
        published(small, datasets=["owner/photos"], base_model="timm/resnet18.a1_in1k")
        card = ModelCard(Path(hf_hub_download("owner/animals", "README.md")).read_text())
        if int(huggingface_hub.__version__.split(".")[0]) >= 2:  # before, it asks huggingface.co whatever the endpoint
            card.validate()
        assert card.data.library_name == "gcpzoo"
        assert card.data.pipeline_tag == "image-classification"
        assert card.data.license == "apache-2.0"
        assert card.data.datasets == ["owner/photos"]
        assert card.data.base_model == "timm/resnet18.a1_in1k"
        assert {r.metric_name: r.metric_value for r in card.data.eval_results} == {
            "Top-1 accuracy (%)": 91.5, "Top-5 accuracy (%)": 100.0,
        }  # fmt: skip
        for text in ('gcpzoo.load("hf-hub:owner/animals")', "80.25", "3 epochs of SGD", "it knows three animals"):
            assert text in card.text

    def test_what_people_wrote_is_kept(self, hub: Hub, small):
        hub.seed("owner/animals", {"README.md": b"---\nlicense: mit\ntags: [zoo]\n---\n# Our animals\nBy hand.\n"})
        done = published(small)
        assert done.card.endswith("---\n# Our animals\nBy hand.\n")
        card = ModelCard(done.card)
        assert card.data.license == "mit"
        assert card.data.tags[0] == "zoo"
        assert card.data.library_name == "gcpzoo"

    def test_text_around_ours_is_kept_and_ours_renewed(self, hub: Hub, small):
        card = published(small).card
        hub.seed("owner/animals", {"README.md": (card.replace("91.50", "12.34") + "\nThanks to all.\n").encode()})
        renewed = published(small).card
        assert renewed.endswith("Thanks to all.\n")
        assert "91.50" in renewed
        assert "12.34" not in renewed

    def test_a_card_that_is_no_yaml_is_left_alone(self, hub: Hub, small):
        hub.seed("owner/animals", {"README.md": b"---\nlicense: [mit\n---\n# Ours\n"})
        with pytest.raises(ZooError, match="cannot be read, mend it first"):
            published(small)

    def test_an_identifier_is_written_as_the_hub_writes_it(self, small):
        card = ModelCard(publish(small, "owner/animals", licence="Apache-2.0", dry_run=True).card)
        assert card.data.license == "apache-2.0"
        assert ModelCard(publish(small, "owner/animals", dry_run=True).card).data.license == "unknown"

    def test_a_licence_in_words_is_other(self, hub: Hub, small):
        card = ModelCard(publish(small, "owner/animals", licence="other (CUB: non-commercial research)").card)
        assert card.data.license == "other"
        assert card.data.license_name == "other (CUB: non-commercial research)"

    def test_a_licence_that_the_hub_does_not_know_is_an_error(self, hub: Hub, small):
        with pytest.raises(ZooError, match=r"refuses the model card's metadata.*license"):
            publish(small, "owner/animals", licence="my-own")


class TestRepublishing:
    """Other weights in the same repository: nothing generated for the old ones stays beside them."""

    @pytest.fixture
    def first(self, hub: Hub, small) -> str:
        """The card of the first publication, with all that can be generated."""
        return published(small, datasets=["owner/photos"], base_model="timm/resnet18.a1_in1k").card

    def edit(self, hub: Hub, card: str, text: str = "", **metadata) -> None:
        """Put a card with more metadata and text into the repository, as people do on its page."""
        data = {**ModelCard(card).data.to_dict(), **metadata}
        content = f"---\n{yaml.safe_dump(data)}---\n{ModelCard(card).text}{text}"
        hub.seed("owner/animals", {"README.md": content.encode()})

    def test_generated_fields_are_those_of_the_new_weights(self, first, control):
        about = {**ABOUT, "metrics": {"top1": 70.25}, "control": None}
        data = ModelCard(publish(control, "owner/animals", licence="mit", about=about).card).data
        assert data.license == "mit"
        assert data.datasets is None
        assert data.base_model is None
        assert [r.metric_value for r in data.eval_results] == [70.25]
        assert data.tags[-1] == "gap"
        assert "isqrt" not in data.tags

    def test_without_results_the_old_ones_go(self, first, control):
        assert "model-index" not in ModelCard(publish(control, "owner/animals", licence="mit").card).data.to_dict()

    def test_a_licence_in_words_leaves_no_name_behind(self, hub: Hub, small):
        publish(small, "owner/animals", licence="other (non-commercial research)")
        card = publish(small, "owner/animals", licence="mit").card
        assert "license_name" not in ModelCard(card).data.to_dict()

    def test_fields_tags_and_text_of_people_are_kept(self, hub: Hub, first, control):
        tags = [*ModelCard(first).data.tags, "birds"]
        self.edit(hub, first, "\nThanks to all.\n", language="en", tags=tags, thumbnail="bird.png")
        card = ModelCard(publish(control, "owner/animals", licence="mit").card)
        assert card.data.language == "en"
        assert card.data.to_dict()["thumbnail"] == "bird.png"
        assert card.data.tags == ["birds", *(t for t in ModelCard(first).data.tags if t != "isqrt"), "gap"]
        assert card.text.endswith("Thanks to all.\n")

    def test_the_same_model_again_changes_nothing(self, hub: Hub, first, small):
        again = published(small, datasets=["owner/photos"], base_model="timm/resnet18.a1_in1k")
        assert again.files == ()
        assert ModelCard(again.card).data.to_dict() == ModelCard(first).data.to_dict()


def test_each_metric_stands_beside_its_own_control(small):
    about = {**ABOUT, "control": {"top1": 80.25, "top5": 97.5}}
    card = publish(small, "owner/animals", about=about, dry_run=True).card
    assert "| Top-1 accuracy (%) | 91.50 | 80.25 |" in card
    assert "| Top-5 accuracy (%) | 100.00 | 97.50 |" in card
    assert "| Top-5 accuracy (%) | 100.00 | – |" in publish(small, "owner/animals", about=ABOUT, dry_run=True).card


def test_the_card_says_how_far_the_weights_are_verified(hub: Hub, small):
    assert "Weights: unverified" not in published(small).card
    assert "Weights: accuracy verified." in publish("resnet18_isqrt.digits", "owner/digits", dry_run=True).card


@pytest.mark.parametrize("name", ["resnet18_isqrt.digits", "mobilenet_v2_isqrt.grocery81"])
def test_the_line_that_fine_tunes_runs_as_the_card_shows_it(hub: Hub, cli, folder, name):
    card = publish(name, "owner/model", licence="mit").card
    (line,) = re.findall(r"`gcpzoo (fit [^`]+)`", card)
    arguments = [str(folder) if word == "FOLDER" else word for word in shlex.split(line)]
    assert "hf-hub:owner/model" in arguments
    code, _, err = cli(*arguments, "--trainer.fast_dev_run", 1, "--trainer.accelerator", "cpu", "--data.workers", 0)
    assert code == 0, err


def test_the_line_that_loads_runs_as_the_card_shows_it(hub: Hub, small, image, tmp_path, monkeypatch):
    from PIL import Image

    card = published(small).card
    (program,) = re.findall(r"```python\n(.*?)```", card, re.S)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), "gray").save("image.jpg")
    names: dict = {}
    exec(program, names)
    assert names["logits"].shape == (1, 3)
