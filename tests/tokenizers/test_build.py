"""A build encodes what it draws, goes on after a kill in any stage, and refuses other hours."""

import filecmp
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from unitone.corpus.corpus import read_corpus
from unitone.corpus.reading import ReadingConfig
from unitone.errors import ConfigError
from unitone.eval.bench.sampling import compare, features_of, split_off
from unitone.resume import Journal
from unitone.tokenizers import build
from unitone.tokenizers.build import BuildConfig
from unitone.tokenizers.jobs import build as build_job
from unitone.tokenizers.kmeans import kmeans, sampling
from unitone.tokenizers.kmeans.reservoir import Reservoir
from unitone.tokenizers.options import ExtractorConfig
from unitone.tokenizers.passport import Passport

Speech = Callable[..., np.ndarray]
ARTIFACTS = ("passport.json", "kmeans.safetensors", "units.model", "skipped.jsonl")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Path:
    """Two hundred recordings of half a second."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = []
    for number in range(200):
        soundfile.write(folder / f"{number}.wav", speech(0.5, number), 16_000)
        record = {"id": f"u{number}", "audio": f"{number}.wav", "duration": 0.5}
        lines.append(json.dumps(record) + "\n")
    (folder / "m.jsonl").write_text("".join(lines))
    return folder / "m.jsonl"


def arguments(manifest: Path, out: Path, *more: object, hours: object = 0.006) -> list[str]:
    options = ("--manifest", manifest, "--ssl", "mfcc", "--out", out, "--sample-hours", hours)
    k = () if "--k" in more else ("--k", 8)
    return [*map(str, (*options, "--statistics-hours", 0.003, *k, *more))]


def run_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())["run"]
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    out = tmp_path_factory.mktemp("built") / "t"
    assert build.main(arguments(corpus, out)) == 0
    return out


def test_only_the_speech_asked_for_is_encoded(built: Path, corpus: Path, tmp_path: Path) -> None:
    run = run_of(built)
    assert run["drawn_hours"] == pytest.approx(0.006, abs=0.5 / 3600)
    assert run["drawn_utterances"] == 44
    assert (run["corpus_utterances"], run["corpus_hours"]) == (200, pytest.approx(100 / 3600))
    assert "44 of 200 utterances" in (built / "README.md").read_text()
    report = json.loads((built / "report.json").read_text())["quality"]
    assert report["seconds"] == pytest.approx(3600 * 0.003, abs=0.5)

    lines = corpus.read_text().splitlines()
    many = tmp_path / "many.jsonl"
    with many.open("w") as file:
        for copy in range(100):
            for line in lines:
                one = json.loads(line)
                place = str(corpus.parent / one["audio"])
                file.write(json.dumps({**one, "id": f"{one['id']}-{copy}", "audio": place}) + "\n")
    assert build.main(arguments(many, tmp_path / "many")) == 0
    of_many = run_of(tmp_path / "many")
    assert of_many["corpus_utterances"] == 20_000
    assert of_many["drawn_frames"] == run["drawn_frames"]


def test_order_workers_and_shards_of_the_manifest_make_no_difference(
    built: Path, corpus: Path, tmp_path: Path
) -> None:
    lines = corpus.read_text().splitlines()
    shuffled = corpus.parent / "shuffled.jsonl"
    shuffled.write_text("\n".join([*lines[1::2], *reversed(lines[::2])]))
    assert build.main(arguments(shuffled, tmp_path / "t", "--workers", 1)) == 0
    for name in ARTIFACTS:
        assert filecmp.cmp(built / name, tmp_path / "t" / name, shallow=False), name


def test_everything_is_encoded_on_demand_and_where_there_is_no_more(
    corpus: Path, tmp_path: Path
) -> None:
    """--sample-hours 0 and the default of a small corpus: the sample of all frames as ever."""
    for name, hours in (("all", 0), ("more", 1)):
        assert build.main(arguments(corpus, tmp_path / name, hours=hours)) == 0
    run = run_of(tmp_path / "all")
    assert run["drawn_utterances"] == run["corpus_utterances"] == 200
    assert run["drawn_hours"] == run["corpus_hours"] == pytest.approx(100 / 3600)
    for name in ARTIFACTS:
        assert filecmp.cmp(tmp_path / "all" / name, tmp_path / "more" / name, shallow=False), name


def test_other_hours_are_refused_by_name(
    built: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main(arguments(corpus, built)) == 0
    assert build.main(arguments(corpus, built, hours=1)) == 2
    assert "sample_hours = 0.006, now it is 1.0" in capsys.readouterr().err
    assert build.main(arguments(corpus, built, hours=0)) == 2


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (Reservoir, "add", 3),
        (kmeans, "train", 0),
        (build_job, "collect_units", 0),
        (Journal, "append", 5),
        (build_job, "write_report", 0),
        (Passport, "save", 0),
    ],
)
def test_a_build_killed_in_any_stage_ends_in_the_same_tokenizer(
    built: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    calls: int,
) -> None:
    plain, left = getattr(owner, name), [calls]

    def killed(*given: Any, **named: Any) -> Any:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return plain(*given, **named)

    monkeypatch.setattr(sampling, "BLOCK", 2)
    monkeypatch.setattr(sampling, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(owner, name, killed)
    with pytest.raises(KeyboardInterrupt):
        build.build(_config(corpus, tmp_path / "t"))
    monkeypatch.setattr(owner, name, plain)
    assert not (tmp_path / "t" / "passport.json").exists()
    assert build.main(arguments(corpus, tmp_path / "t")) == 0
    for artifact in ARTIFACTS:
        assert filecmp.cmp(built / artifact, tmp_path / "t" / artifact, shallow=False), artifact


def _config(corpus: Path, out: Path) -> BuildConfig:
    return BuildConfig(
        out=out,
        reading=ReadingConfig(manifest=corpus),
        extractor=ExtractorConfig(ssl="mfcc"),
        k=8,
        sample_hours=0.006,
        statistics_hours=0.003,
    )


def test_hours_that_cannot_be(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main(arguments(corpus, tmp_path / "t", "--k", 60, hours=1e-9)) == 2
    assert "the speech drawn has about" in (said := capsys.readouterr().err)
    assert "raise --sample-hours" in said
    with pytest.raises(ConfigError, match="--sample-hours must be 0 or more, got -1"):
        replace(_config(corpus, tmp_path / "t"), sample_hours=-1.0)


def test_the_default_is_enough_for_a_fifth_of_each_utterance() -> None:
    config = BuildConfig(out=Path("t"), reading=ReadingConfig(manifest=Path("m")), k=2000)
    assert config.sample_seconds(50.0) == pytest.approx(256 * 2000 / 0.2 / 50)
    few = BuildConfig(out=Path("t"), reading=ReadingConfig(manifest=Path("m")), k=8)
    assert few.sample_seconds(100.0) == 7200.0


def test_drawn_utterances_serve_k_means_as_well_as_all(tmp_path: Path, speech: Speech) -> None:
    """The mean of three seeds, on frames that nothing learnt from: at most 1 % more inertia."""
    lines = []
    for number in range(240):
        soundfile.write(tmp_path / f"{number}.wav", speech(2.0, number), 16_000)
        lines.append(json.dumps({"id": str(number), "audio": f"{number}.wav", "duration": 2.0}))
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    utterances = read_corpus(tmp_path / "m.jsonl").utterances
    features = dict(features_of(utterances, ExtractorConfig(ssl="mfcc")))
    _, out = split_off(utterances, 0.25)
    held_out = np.concatenate([features.pop(name) for name in sorted(out)])
    ratios = []
    for seed in range(3):
        plan = ReadingConfig(manifest=tmp_path / "m.jsonl").draw(240.0, seed=seed)
        drawn = [one.id for one in plan.utterances if one.id in features]
        made = compare(features, held_out, drawn, k=20, seed=seed)
        ratios.append(made.drawn / made.uniform)
    assert float(np.mean(ratios)) < 1.01
    assert max(ratios) < 1.02
