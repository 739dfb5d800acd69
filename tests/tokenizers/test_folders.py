"""Folders: the user's files are kept, all that was read counts, encoders are found."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unitone import files
from unitone.errors import ConfigError, CorpusError
from unitone.tokenizers import build, encode, encoders, features
from unitone.tokenizers.encoder import local_path
from unitone.tokenizers.encoders.mfcc import MFCC
from unitone.tokenizers.jobs import build as build_job
from unitone.tokenizers.shards import TokenShards
from unitone.tokenizers.tokenizer import Tokenizer

Speech = Callable[..., np.ndarray]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    soundfile.write(folder / "a.wav", speech(3.0), 16_000)
    (folder / "m.jsonl").write_text(json.dumps({"id": "a", "audio": "a.wav", "text": "abc"}) + "\n")
    return folder / "m.jsonl"


def run_build(manifest: Path, out: Path, *more: str) -> int:
    options = ["--manifest", str(manifest), "--k", "8", "--unit-subwords", "0", "--out", str(out)]
    return build.main([*options, *(() if "--ssl" in more else ("--ssl", "mfcc")), *more])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, manifest: Path) -> Path:
    out = tmp_path_factory.mktemp("tokenizer") / "t"
    assert run_build(manifest, out) == 0
    return out


def _killed(*_: object, **__: object) -> None:
    raise CorpusError("killed")


def run_encode(tokenizer: Path, manifest: Path, out: Path) -> int:
    options = ["--tokenizer", str(tokenizer), "--manifest", str(manifest), "--out", str(out)]
    return encode.main(options)


@pytest.mark.parametrize("name", ["README.md", ".notes.1.tmp", "data.csv"])
def test_a_folder_of_the_user_is_refused_and_left_as_it_is(
    tmp_path: Path,
    manifest: Path,
    tokenizer: Path,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).write_text("mine")
    assert run_build(manifest, tmp_path) == 2
    assert run_encode(tokenizer, manifest, tmp_path) == 2
    options = ["--ssl", "mfcc", "--manifest", str(manifest), "--out", str(tmp_path)]
    assert features.main(options) == 2
    assert capsys.readouterr().err.count(f"holds other files ({name})") == 3
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_readme_of_the_user_stays_in_our_folder(
    tmp_path: Path, manifest: Path, tokenizer: Path
) -> None:
    out = tmp_path / "out"
    assert run_encode(tokenizer, manifest, out) == 0
    ours = (out / "README.md").read_text()
    (out / "README.md").write_text("# Mine\n")
    (out / ".notes.tmp").write_text("mine")
    assert run_encode(tokenizer, manifest, out) == 0
    assert (out / "README.md").read_text() == "# Mine\n"
    assert (out / ".notes.tmp").read_text() == "mine"
    (out / "README.md").write_text(ours + "more")
    assert run_encode(tokenizer, manifest, out) == 0
    assert (out / "README.md").read_text() == ours


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("whole")
        shutil.copy(temporary, temporary.with_name(f".b.json.1{files.UNFINISHED}"))
    with files.locked(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_durations_of_0_are_unknown_to_build(tmp_path: Path, manifest: Path) -> None:
    audio = str(manifest.parent / "a.wav")
    (tmp_path / "n.jsonl").write_text(json.dumps({"audio_filepath": audio, "duration": 0}) + "\n")
    assert run_build(tmp_path / "n.jsonl", tmp_path / "t") == 0


def test_imported_centroids_belong_to_the_identity_of_a_tokenizer(
    tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, draw = tmp_path / "c.npy", np.random.default_rng(0)
    for status in (0, 2):
        np.save(path, draw.standard_normal((8, 39)).astype(np.float32))
        assert run_build(manifest, tmp_path / "t", "--centroids", str(path)) == status
    assert "centroids_sha256" in capsys.readouterr().err


def test_the_weights_of_its_encoder_belong_to_the_identity_of_a_tokenizer(
    tmp_path: Path,
    manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_build(manifest, tmp_path / "t") == 0
    with monkeypatch.context() as patch:
        patch.setattr(build_job, "collect_units", _killed)
        assert run_build(manifest, tmp_path / "killed") == 1
    features = MFCC.features
    monkeypatch.setattr(MFCC, "features", lambda *args, **more: -2 * features(*args, **more))
    monkeypatch.setattr(MFCC, "weight_hash", "0" * 64)
    assert run_build(manifest, tmp_path / "t") == 2
    assert "encoder_weights" in capsys.readouterr().err
    for name in ("killed", "anew"):  # a killed build goes on with nothing of the other weights
        assert run_build(manifest, tmp_path / name) == 0
    killed, anew = (Tokenizer.load(tmp_path / name).passport for name in ("killed", "anew"))
    assert killed.hash == anew.hash


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no utterance has a text"), ("abc", "give more text or ask for at most")],
)
def test_text_subwords_that_cannot_be_are_refused_before_k_means(
    tmp_path: Path,
    manifest: Path,
    text: str | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = {"id": "a", "audio": str(manifest.parent / "a.wav"), "text": text}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    options = ("--text", "sentencepiece", "--text-subwords", "5000")
    assert run_build(tmp_path / "m.jsonl", tmp_path / "t", *options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "--" not in said.rpartition("error:")[2]
    assert not (tmp_path / "t" / "kmeans.safetensors").exists()


@pytest.fixture
def energies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The encoder of ``docs/add-an-encoder.md``, as if it lay in the folder of encoders."""
    docs = Path(__file__).resolve().parents[2] / "docs"
    page = (docs / "add-an-encoder.md").read_text(encoding="utf-8")
    path = tmp_path / "encoders" / "energies.py"
    path.parent.mkdir()
    path.write_text(page.split("```python\n")[1].split("```")[0])
    monkeypatch.setattr(encoders, "__path__", [*encoders.__path__, str(path.parent)])
    return path.stem


def test_an_encoder_without_weights_works_from_the_command_line(
    energies: str, tmp_path: Path, manifest: Path
) -> None:
    assert run_build(manifest, tmp_path / "t", "--ssl", energies) == 0
    assert run_encode(tmp_path / "t", manifest, tmp_path / "e") == 0
    assert len(TokenShards(tmp_path / "e")) == 1


def test_an_encoder_given_by_a_relative_path_is_found_from_another_folder(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert local_path("models/tiny") == tmp_path / "models" / "tiny"
    (tmp_path / "mfcc").mkdir()
    assert local_path("mfcc") is None
    assert local_path("org/name") is None
    copy = shutil.copytree(tokenizer, tmp_path / "t")
    record = json.loads((copy / "build.json").read_text())
    record["options"]["ssl"] = "models/tiny"
    record["encoder"] = str(tmp_path / "models" / "tiny")
    (copy / "build.json").write_text(json.dumps(record))
    assert Tokenizer.load(copy).ssl == str(tmp_path / "models" / "tiny")
    (tmp_path / "models" / "tiny").rmdir()
    assert Tokenizer.load(copy).ssl == "models/tiny"


def test_a_file_in_the_way_is_named(tmp_path: Path, manifest: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="a file is in the way"), files.locked(tmp_path / "out"):
        pass


def test_shards_of_recordings_that_were_written_anew_are_refused(
    tiny_corpus: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, out = tiny_corpus / "manifest.jsonl", tmp_path / "tokens"
    for _ in range(2):
        assert run_encode(tokenizer, manifest, out) == 0
    recording = tiny_corpus / "utterance-3.wav"
    written = max(path.stat().st_mtime for path in out.iterdir()) + 2
    os.utime(recording, (written, written))
    assert run_encode(tokenizer, manifest, out) == 2
    assert f"{recording} was written after {out} was made of it" in capsys.readouterr().err
    for path in out.iterdir():
        os.utime(path, (written, written))
    assert run_encode(tokenizer, manifest, out) == 0
