"""The codec of docs/add-a-codec.md, which has no weights, through every command of codecs."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from tests.codecs.conftest import Stages
from tests.test_docs import ROOT, fences
from unitone.codecs import codec as codecs
from unitone.codecs import encode, synthesize
from unitone.tokenizers.shards import TokenShards


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model directory of the page's codec, which is found as a file of ``codecs/`` would be."""
    code = next(text for kind, text in fences(ROOT / "docs" / "add-a-codec.md") if kind == "python")
    module = ModuleType("unitone.codecs.mulaw")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "mulaw", "exec"), module.__dict__)
    known = codecs.names()
    monkeypatch.setattr(codecs, "names", lambda: [*known, "mulaw"])
    folder = tmp_path / "mulaw"
    folder.mkdir()
    (folder / "config.json").write_text('{"codec": "mulaw"}\n', encoding="utf-8")
    return folder


def test_it_encodes_a_corpus_and_speaks_it(stages: Stages, toy: Path, tmp_path: Path) -> None:
    out, sound = tmp_path / "codes", tmp_path / "sound"
    given = ["--manifest", str(stages.manifest), "--tokens", str(stages.tokens)]
    assert encode.main([*given, "--codec", str(toy), "--out", str(out)]) == 0
    assert TokenShards(str(out)).require_codes().codec.name == "mulaw"
    for _ in range(2):  # the second time, all is there
        options = ["--model", str(toy), "--tokens", str(out), "--out", str(sound)]
        assert synthesize.main(options) == 0
    line = json.loads((sound / "manifest.jsonl").read_text().splitlines()[0])
    wave, _ = soundfile.read(sound / line["audio"])
    original, _ = soundfile.read(stages.manifest.parent / "0.wav")
    assert np.abs(wave - original).max() < 0.03


def test_without_weights_it_is_known_by_its_config(toy: Path) -> None:
    codec = codecs.load(str(toy))
    before = codecs.passport_of(str(toy), codec)
    (toy / "config.json").write_text('{"codec": "mulaw", "mu": 127}\n', encoding="utf-8")
    assert codecs.passport_of(toy, codec) != before


def test_a_codec_takes_what_a_file_holds(toy: Path) -> None:
    codec = codecs.load(toy)
    whole = (8_000 * np.sin(np.arange(1_600) / 9)).astype(np.int16)
    expected = codec.encode(whole / 32_768, 16_000)
    assert np.array_equal(codec.encode(whole, 16_000), expected)
    assert np.array_equal(codec.encode(np.stack([whole, whole]), 16_000), expected)
