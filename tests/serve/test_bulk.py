"""Predictions of many files into a table: what it holds, and how an interrupted run goes on."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_files import truncate, write

import gcpzoo
from gcpzoo.errors import ZooError
from gcpzoo.models.preprocessing import Preprocessing
from gcpzoo.serve import Answer, Predictor, predict_files
from gcpzoo.serve import predictor as module


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    names = [f"photos/{k}.png" for k in range(7)]
    write(tmp_path, names)
    return [str(tmp_path / name) for name in names]


@pytest.fixture
def predictor(small: gcpzoo.GCPNet) -> Predictor:
    return Predictor(small, top=2, batch_size=2, workers=0)


class Interrupted(Exception):
    pass


def stop_after(images: int) -> object:
    def advance(done: int, kept: int) -> None:
        if done - kept >= images:
            raise Interrupted

    return advance


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that the network looks at."""
    seen: list[str] = []
    plain = module.over_images

    def over_images(model: object, function: object, files: list[str], **options: object) -> Iterator[object]:
        seen.extend(files)
        return plain(model, function, files, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "over_images", over_images)
    return seen


def test_the_table_has_a_row_for_each_file_and_names_what_cannot_be_read(
    predictor: Predictor, paths: list[str], tmp_path: Path
) -> None:
    truncate(Path(paths[3]))
    bad = predict_files(predictor, [*paths, paths[0]], tmp_path / "out.csv")
    assert [answer.path for answer in bad] == [paths[3]]
    found = rows(tmp_path / "out.csv")
    assert [row["path"] for row in found] == paths
    assert list(found[0]) == [
        "path", "class", "description", "probability", "class_2", "description_2", "probability_2", "error"
    ]  # fmt: skip
    assert "3.png" in found[3]["error"]
    assert not any(found[3][key] for key in found[3] if key not in ("path", "error"))
    for row, answer in zip(found, predictor(paths)):
        if answer.error is None:
            names = [(c.name, c.description, f"{c.probability:.4f}") for c in answer.classes]
            assert [(row["class"], row["description"], row["probability"]), tuple(list(row.values())[4:7])] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "photos"]


def test_an_interrupted_run_goes_on_and_the_table_is_the_same(
    predictor: Predictor, paths: list[str], tmp_path: Path, asked: list[str]
) -> None:
    predict_files(predictor, paths, tmp_path / "whole.csv")
    output = tmp_path / "out.csv"
    with pytest.raises(Interrupted):
        predict_files(predictor, paths, output, stop_after(4))  # type: ignore[arg-type]
    assert not output.exists()
    part = tmp_path / "out.csv.part"
    with part.open("a") as file:
        file.write('["cut off by a ki')
    asked.clear()
    with pytest.raises(Interrupted):
        predict_files(predictor, paths, output, stop_after(2))  # type: ignore[arg-type]
    assert asked == paths[4:]
    asked.clear()
    predict_files(predictor, paths, output)
    assert asked == paths[6:]
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not part.exists()


def test_what_changed_since_the_interruption_is_looked_at_again(
    predictor: Predictor, paths: list[str], tmp_path: Path, asked: list[str]
) -> None:
    truncate(Path(paths[1]))
    with pytest.raises(Interrupted):
        predict_files(predictor, paths, tmp_path / "out.csv", stop_after(4))  # type: ignore[arg-type]
    status = os.stat(paths[2])
    os.utime(paths[2], ns=(status.st_atime_ns, status.st_mtime_ns))  # as a copy takes over another file's times
    write(tmp_path, ["photos/1.png"])
    asked.clear()
    assert predict_files(predictor, paths[1:], tmp_path / "out.csv") == []
    assert asked == [paths[1], paths[2], *paths[4:]]
    assert [row["path"] for row in rows(tmp_path / "out.csv")] == paths[1:]


def test_another_model_or_other_options_do_not_go_on(
    predictor: Predictor, small: gcpzoo.GCPNet, paths: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    with pytest.raises(Interrupted):
        predict_files(predictor, paths, output, stop_after(4))  # type: ignore[arg-type]
    before = (tmp_path / "out.csv.part").read_bytes()
    for other, message in (
        (Predictor(small, top=3), r"another top \(2 there, 3 here\)"),
        (Predictor(small, top=2, views="mirror"), "another views"),
        (Predictor("resnet18_isqrt.digits", top=2), "another model"),
    ):
        with pytest.raises(ZooError, match=message):
            predict_files(other, paths, output)
    assert (tmp_path / "out.csv.part").read_bytes() == before
    (tmp_path / "out.csv.part").write_text("a file of mine\n")
    with pytest.raises(ZooError, match="is damaged: delete it"):
        predict_files(predictor, paths, output)
    with pytest.raises(ZooError, match="output must be a file"):
        predict_files(predictor, paths, tmp_path)


def test_a_table_that_is_there_stays_until_the_new_one_is_whole(
    predictor: Predictor, paths: list[str], tmp_path: Path
) -> None:
    (tmp_path / "out.csv").write_text("old")
    with pytest.raises(Interrupted):
        predict_files(predictor, paths, tmp_path / "out.csv", stop_after(4))  # type: ignore[arg-type]
    assert (tmp_path / "out.csv").read_text() == "old"
    predict_files(predictor, paths, tmp_path / "out.csv")
    assert len(rows(tmp_path / "out.csv")) == 7


def test_answers_are_plain_and_small() -> None:
    assert not hasattr(Answer("a.png"), "__dict__")


def test_an_image_too_long_and_thin_to_resize_is_named_and_ends_nothing(small: gcpzoo.GCPNet, tmp_path: Path) -> None:
    write(tmp_path, ["thin.png"], 1, 70_000)
    write(tmp_path, ["good.png"])
    rule, small.preprocessing = small.preprocessing, Preprocessing(resize=32, crop=32)
    try:
        thin, good = Predictor(small, workers=0)([tmp_path / "thin.png", tmp_path / "good.png"])
    finally:
        small.preprocessing = rule
    assert thin.error == (
        f"cannot read image {tmp_path}/thin.png: resized from 1×70,000 to 32×2,240,000 pixels, more than 67,108,864"
    )
    assert good.error is None


def test_the_table_never_replaces_an_image_that_it_is_about(
    predictor: Predictor, paths: list[str], tmp_path: Path
) -> None:
    (tmp_path / "link.csv").symlink_to(paths[1])
    before = Path(paths[1]).read_bytes()
    for output in (paths[1], tmp_path / "photos/../photos/1.png", tmp_path / "link.csv"):
        with pytest.raises(ZooError, match="is one of the files to read, which the output would destroy"):
            predict_files(predictor, paths, output)
    assert Path(paths[1]).read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))
