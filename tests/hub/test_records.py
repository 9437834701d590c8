"""The index: every record valid and buildable, mistakes named, names found without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.hub import records, save_local
from gcpzoo.hub.records import get_record, parse_record
from gcpzoo.models.preprocessing import Preprocessing

NAMES = gcpzoo.list_models()


@pytest.fixture
def zoo(tmp_path, monkeypatch, small) -> Path:
    """A zoo of one embedded checkpoint, in ``checkpoints`` of its own; gives that folder."""
    folder = tmp_path / "checkpoints"
    (folder / "records").mkdir(parents=True)
    digest = save_local(small, tmp_path / "model", dtype=torch.float16)
    (tmp_path / "model" / "model.safetensors").rename(folder / "animals.safetensors")
    record = {
        "name": "resnet18_isqrt.animals",
        "config": small.config,
        "source": {"file": "animals.safetensors"},
        "sha256": digest,
        "size": (folder / "animals.safetensors").stat().st_size,
        "licence": "Apache-2.0",
        "provenance": "made for a test",
        "data": "Animals: 6 photographs",
        "metrics": {"top1": 50.0},
        "measured_by": "gcpzoo",
        "control": {"top1": 33.33},
        "preprocessing": {"resize": 64, "crop": 48},
        "class_names": small.class_names,
    }
    (folder / "records" / "resnet18_isqrt.animals.yaml").write_text(yaml.safe_dump(record, allow_unicode=True))
    monkeypatch.setattr("gcpzoo.hub.records.resource", lambda name: folder)
    return folder


class TestIndex:
    def test_all_52_official_checkpoints_are_in_it(self):
        official = [r for r in map(get_record, NAMES) if r.kind == "authors"]
        assert len(official) == 52
        assert len({r.source["url"] for r in official}) == 52

    def test_all_but_one_can_be_loaded(self):
        assert [n for n in NAMES if get_record(n).unsupported] == ["swin_tiny_dropcov.in1k_wang2022"]

    @pytest.mark.parametrize("name", NAMES)
    def test_every_record_builds(self, name):
        record = get_record(name)
        Preprocessing.from_dict(record.preprocessing)
        if not record.unsupported:
            with torch.device("meta"):
                model = gcpzoo.GCPNet.from_config(record.config)
            assert name.split(".")[0] == f"{record.config['backbone']}_{record.config['head']}".replace("timm:", "")
            assert record.class_names == "imagenet1k" or len(record.class_names) == model.config["num_classes"]

    @pytest.mark.parametrize("name", [n for n in NAMES if get_record(n).control])
    def test_a_control_is_a_gap_network_with_the_figures_that_are_quoted(self, name):
        control = get_record(name).control
        if "record" in control:
            other = get_record(control["record"])
            assert other.config["head"] == "gap"
            quoted = {key: value for key, value in control.items() if key in ("top1", "top5", "per_class")}
            assert quoted.items() <= other.metrics.items()
            assert "top1" in quoted

    def test_patterns_choose(self):
        found = gcpzoo.list_models("resnet50_isqrt*", pretrained=True)
        assert "resnet50_isqrt.in1k_li2018" in found
        assert found == sorted(n for n in NAMES if n.startswith("resnet50_isqrt"))
        assert "resnet50_isqrt" in gcpzoo.list_models("resnet50_*", pretrained=False)

    def test_listing_loads_no_torch(self):
        program = "import sys, gcpzoo; gcpzoo.list_models(); gcpzoo.hub.get_record(gcpzoo.list_models()[0])\n"
        program += "print([m for m in ('torch', 'huggingface_hub', 'timm') if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == "[]"


class TestMistakes:
    GOOD = yaml.safe_dump(
        {
            "name": "resnet18_gap.x",
            "config": {"backbone": "resnet18"},
            "source": {"repo": "owner/x", "revision": "0" * 40},
            "sha256": "0" * 64,
            "licence": "MIT",
            "provenance": "",
            "data": "",
            "metrics": {},
            "measured_by": "gcpzoo",
            "preprocessing": {},
        }
    )

    def test_the_example_is_good(self):
        assert parse_record(self.GOOD, "resnet18_gap.x").kind == "hub"

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("licence: MIT\n", "", "field 'licence' is missing"),
            ("licence:", "lisence:", "did you mean licence"),
            ("0" * 40, "main", "full commit of 40 hex digits"),
            ("'" + "0" * 64 + "'", "abc", "sha256 must be 64 hex digits"),
            ("'" + "0" * 64 + "'", "'" + "0" * 8 + "'", "sha256 must be 64 hex digits"),
            ("'" + "0" * 64 + "'", "null", "sha256 must be 64 hex digits, got None"),
            ("metrics: {}", "metrics: 3", "field 'metrics' must be a valid dictionary, got 3"),
            ("repo: owner/x", "rep: owner/x", "source must be"),
            ("measured_by: gcpzoo", "measured_by: me", "measured_by must be authors or gcpzoo"),
            ("name: resnet18_gap.x", "name: y", "its name must be its file's name"),
            ("licence: MIT", "licence: [MIT", "not valid YAML"),
        ],
    )
    def test_each_is_named(self, old, new, message):
        assert old in self.GOOD
        with pytest.raises(ZooError, match=f"resnet18_gap.x.*{message}"):
            parse_record(self.GOOD.replace(old, new), "resnet18_gap.x")

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ("sede: [1]", "unknown field"),
            ("seeds: [one]", r"field 'seeds'\[0\] must be a valid integer.*got 'one'"),
            ("size: small", "field 'size' must be a valid integer"),
            ("caveats: none at all", "field 'caveats' must be a valid list"),
            ("class_names: imagenet", "class_names must be a list of ids or imagenet1k, got 'imagenet'"),
            ("class_names: [1, 2]", "field 'class_names'"),
        ],
    )
    def test_further_fields_are_checked_too(self, more, message):
        with pytest.raises(ZooError, match=f"resnet18_gap.x.*{message}|{message}.*resnet18_gap.x") as caught:
            parse_record(f"{self.GOOD}{more}\n", "resnet18_gap.x")
        assert "\n" not in str(caught.value)

    def test_a_metric_that_is_no_number_is_named(self):
        for value in (".nan", "high"):
            with pytest.raises(ZooError, match=r"field 'metrics'\['top1'\] must be a"):
                parse_record(self.GOOD.replace("metrics: {}", f"metrics: {{top1: {value}}}"), "resnet18_gap.x")

    @pytest.mark.parametrize("text", ["", "- a list", "just words"])
    def test_a_record_is_a_mapping(self, text):
        with pytest.raises(ZooError, match="record resnet18_gap.x: expected one YAML mapping, got"):
            parse_record(text, "resnet18_gap.x")

    def test_text_of_another_encoding_is_named(self, tmp_path, monkeypatch):
        (tmp_path / "records").mkdir()
        content = self.GOOD.replace("provenance: ''", "provenance: ü")
        (tmp_path / "records" / "resnet18_gap.x.yaml").write_bytes(content.encode("latin-1"))
        monkeypatch.setattr("gcpzoo.hub.records.resource", lambda name: tmp_path)
        with pytest.raises(ZooError, match=r"record resnet18_gap.x: .*must be UTF-8 text, got byte 0xfc"):
            get_record("resnet18_gap.x")

    def test_an_embedded_file_stays_in_its_folder(self):
        text = self.GOOD.replace("repo: owner/x", "file: ../x").replace("  revision: '" + "0" * 40 + "'\n", "")
        with pytest.raises(ZooError, match="must be a file name in checkpoints/"):
            parse_record(text, "resnet18_gap.x")


class TestStatus:
    """How far a checkpoint is verified, in the same words everywhere."""

    UNVERIFIED = "unverified (authors' link, no published hash)"

    def test_the_word_follows_from_hash_and_measurement(self):
        assert get_record("resnet18_isqrt.digits").status == "accuracy verified"
        assert get_record("resnet50_isqrt.in1k_li2018").status == self.UNVERIFIED
        words = [r.status for r in map(get_record, NAMES) if r.kind == "authors"]
        assert (words.count(self.UNVERIFIED), words.count("sha256 pinned")) == (50, 2)

    def test_list_info_card_and_table_say_the_same_word(self, cli):
        from gcpzoo.hub.card import hub_card, records_table, zoo_card

        for name in ("resnet50_isqrt.in1k_li2018", "resnet18_isqrt.digits", "resnet50_isqrt.in1k_li2018_legacy"):
            word = get_record(name).status
            assert word in hub_card("owner/model", get_record(name))
            (row,) = [line for line in records_table([name]).splitlines() if name in line]
            assert row.endswith(f"| {word} |")
            assert row in zoo_card()
            assert cli("list", name, "--json")[1].count(word) == 1
            assert word in " ".join(cli("list", name, "--wide")[1].split())
            assert word in " ".join(cli("info", name)[1].split())


class TestEmbedded:
    def test_it_loads_by_name_with_all_that_is_known(self, zoo, small, image):
        assert gcpzoo.list_models() == ["resnet18_isqrt.animals"]
        model = gcpzoo.load("resnet18_isqrt.animals")
        with torch.inference_mode():
            # 16-bit weights: 11 bits of mantissa through six layers
            torch.testing.assert_close(model(image), small(image), atol=2e-2, rtol=2e-2)
        assert model.class_names == small.class_names
        assert model.record.metrics == {"top1": 50.0}
        assert model.transform is not None

    def test_tampered_weights_are_refused(self, zoo):
        data = bytearray((zoo / "animals.safetensors").read_bytes())
        data[-1] ^= 1
        (zoo / "animals.safetensors").write_bytes(data)
        with pytest.raises(ZooError, match="damaged: its sha256 is"):
            gcpzoo.load("resnet18_isqrt.animals")

    def test_a_missing_file_is_named(self, zoo, monkeypatch):
        monkeypatch.setattr("gcpzoo.hub.records.IN_PACKAGE", {"resnet18_isqrt.animals"})
        (zoo / "animals.safetensors").unlink()
        with pytest.raises(ZooError, match=r"animals\.safetensors is missing; install gcpzoo again"):
            gcpzoo.load("resnet18_isqrt.animals")


class TestCards:
    def test_the_zoo_card_names_every_checkpoint_with_its_control(self):
        from gcpzoo.hub.card import zoo_card

        text = zoo_card()
        for name in NAMES:
            assert f"`{name}`" in text
        assert "| `resnet18_isqrt.in1k_wang2020_lrnorm` | 75.48* | 70.47* | 92.23* |" in text
        # ours first
        assert text.index("`resnet18_isqrt.digits`") < text.index("`mobilenet_v2_gap.in1k_wang2020_lradju`")

    def test_the_table_in_a_page_is_renewed_between_its_marks(self, zoo, tmp_path):
        from gcpzoo.hub.card import BEGIN, END, update_page

        page = tmp_path / "README.md"
        page.write_text(f"# Zoo\n{BEGIN}\nold\n{END}\nmore\n")
        assert update_page(page)
        assert not update_page(page)
        text = page.read_text()
        assert text.startswith(f"# Zoo\n{BEGIN}\n| model |")
        assert "| `resnet18_isqrt.animals` | 50.00 | 33.33 |" in text
        assert text.endswith(f"{END}\nmore\n")
        page.write_text("# Zoo\n")
        with pytest.raises(ZooError, match="needs the lines"):
            update_page(page)


def test_the_records_of_the_checkout_are_the_ones_in_use():
    assert records.resource("checkpoints") == Path(__file__).parents[2] / "checkpoints"
