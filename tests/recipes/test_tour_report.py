"""The tour's page, of a miniature of everything that the tour leaves."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from unitone.codecs import synthesize, unit_decoder
from unitone.codecs.nn.network import NetworkConfig, UnitNetwork
from unitone.codecs.options import BackboneConfig
from unitone.corpus.audio import SAMPLE_RATE, Clip
from unitone.errors import ConfigError, CorpusError
from unitone.eval import bleu, classify, wer
from unitone.lm import decode, family
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.decoder.template import TASKS
from unitone.lm.t2v2 import table as t2v2
from unitone.lm.t2v2.model import T2V2, T2V2Config
from unitone.nn.conformer import ConformerConfig
from unitone.nn.transformer import TransformerConfig
from unitone.recipes.tour import families, learning, report, scores, sections
from unitone.recipes.tour import speech as tour_speech
from unitone.recipes.tour.files import TourFiles
from unitone.recipes.tour.stages import NAR
from unitone.tokenizers import build, encode
from unitone.tokenizers.passport import Passport

Speech = Callable[..., np.ndarray]
UNITS = 12
LANGUAGES, VOICES = ("de", "en"), {"ann": "female", "bob": "male"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """Networks this small are slower on two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Path:
    """A finished tour: eight utterances and an untrained model; only its curves are invented."""
    folder = tmp_path_factory.mktemp("tour")
    _corpus(folder, speech)
    manifest = str(folder / "corpus" / "manifest.jsonl")
    tokenizer, tokens = str(folder / "tokenizer"), str(folder / "tokens")
    options = ["--manifest", manifest, "--ssl", "mfcc", "--k", str(UNITS), "--unit-subwords", "0"]
    assert build.main([*options, "--out", tokenizer]) == 0
    assert encode.main(["--manifest", manifest, "--tokenizer", tokenizer, "--out", tokens]) == 0
    _models(folder)
    _curves(folder)
    best, test = str(folder / "lm" / "best"), ["--tokens", tokens, "--split", "test"]
    for task, more in _DECODED.items():
        sound = ["--audio", str(folder / "hyp" / f"audio-{task}")] if _speaks(task) else []
        options = ["--model", best, "--task", task, *test, *more, *sound]
        options += [] if task in ("lid", "gid") else ["--max-tokens", "60"]
        assert decode.main([*options, "--out", str(folder / "hyp" / f"{task}.jsonl")]) == 0
    options = ["--model", str(folder / "decoder"), *test, "--out", str(folder / "resynthesis")]
    assert synthesize.main(options) == 0
    for task, score in _SCORED.items():
        options = ["--ref", manifest, "--split", "test", "--hyp", f"{folder}/hyp/{task}.jsonl"]
        assert score([*options, "--out", str(folder / "scores" / task)]) == 0
        against = [*options, "--against", f"{folder}/hyp/{task}.jsonl"]
        assert score([*against, "--out", str(folder / "scores" / NAR / task)]) == 0
    shutil.copytree(folder / "hyp", folder / "hyp" / NAR)  # as good as decoded by another model
    spent = {"mean": 0.5, "interval": [0.4, 0.6], "utterances": 4}
    seconds = {"seconds": {name: {"asr": spent, "tts": spent} for name in ("lm/best", "t2v2/best")}}
    (folder / "scores" / "seconds.json").write_text(json.dumps(seconds))
    return folder


_DECODED = {
    "asr": [],
    "st": ["--to", *LANGUAGES],
    "mt": ["--to", *LANGUAGES],
    "lid": ["--min-tokens", "1"],
    "gid": ["--min-tokens", "1"],
    "tts": ["--min-tokens", "5"],
    "continue": ["--prefix", "6"],
}
_SCORED: dict[str, Callable[[list[str]], int]] = {
    "asr": wer.main,
    "st": bleu.main,
    "mt": bleu.main,
    "lid": lambda options: classify.main([*options, "--field", "language"]),
    "gid": lambda options: classify.main([*options, "--field", "gender"]),
}


def _speaks(task: str) -> bool:
    return task in ("tts", "continue")


def _corpus(folder: Path, speech: Speech) -> None:
    (folder / "corpus").mkdir()
    lines = []
    for index in range(8):
        language, other = LANGUAGES if index % 2 else LANGUAGES[::-1]
        speaker, gender = list(VOICES.items())[index // 2 % 2]
        seconds = 0.6 + 0.1 * index
        wave = speech(seconds, index)
        soundfile.write(folder / "corpus" / f"{index}.wav", wave, SAMPLE_RATE, subtype="PCM_16")
        row = {
            "id": f"u{index}",
            "audio": f"{index}.wav",
            "text": f"satz {index} & more",
            "translation": {other: f"<b>sentence</b> {index}"},
            "language": language,
            "speaker": speaker,
            "gender": gender,
            "duration": seconds,
            "split": "train" if index < 4 else "test",
            "phones": [["_", 0.0, 0.1], ["a:", 0.1, seconds]],
        }
        lines.append(json.dumps(row) + "\n")
    (folder / "corpus" / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    versions = {"versions": {"eSpeak NG": "1.52.0"}}
    (folder / "corpus" / "corpus.json").write_text(json.dumps(versions))


def _models(folder: Path) -> None:
    passport = Passport.load(folder / "tokenizer")
    shape = BackboneConfig(dim=16, num_blocks=1, duration_dim=8)
    config = NetworkConfig(
        num_units=UNITS,
        frame_rate=100.0,
        speakers=tuple(VOICES),
        griffin_lim=2,
        backbone=shape,
    )
    network = UnitNetwork(config, generator=torch.Generator().manual_seed(1))
    decoder = folder / "decoder" / "best"
    decoder.mkdir(parents=True)
    card = unit_decoder.Card(utterances=4, seconds=3.0, manifest="manifest.jsonl", split=None)
    unit_decoder.save(decoder, network, passport=passport, tokenizer=None, card=card)
    vocabulary = Vocabulary.build(
        text=passport.text.size,
        units=UNITS,
        tasks=[task.name for task in TASKS],
        languages=LANGUAGES,
        genders=sorted(VOICES.values()),
        speakers=tuple(VOICES),
        passport=passport.hash,
    )
    transformer = TransformerConfig(dim=16, layers=2, heads=2, kv_heads=1, ffn=24)
    settings = ModelConfig(transformer=transformer, vocab_size=len(vocabulary), context=400)
    model = LanguageModel(settings, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        model.embedding.weight.mul_(30)
    (folder / "lm").mkdir()
    family.save(
        folder / "lm" / "best",
        model=model,
        vocabulary=vocabulary,
        table=TASKS,
        tokenizer=folder / "tokenizer",
        decoder=decoder,
    )
    (folder / NAR).mkdir()
    _nar(folder, vocabulary)


def _nar(folder: Path, vocabulary: Vocabulary) -> None:
    shape = ConformerConfig(dim=16, layers=1, heads=2, ffn=24)
    size = {name: vocabulary.block(name).size for name in ("text", "language", "speaker", "gender")}
    settings = T2V2Config(
        conformer=shape,
        vocab_size=len(vocabulary),
        text=size["text"],
        units=UNITS,
        languages=size["language"],
        speakers=size["speaker"],
        genders=size["gender"],
    )
    family.save(
        folder / NAR / "best",
        family="t2v2",
        model=T2V2(settings, generator=torch.Generator().manual_seed(3)),
        vocabulary=vocabulary,
        table=t2v2.TASKS,
        tokenizer=folder / "tokenizer",
        decoder=folder / "decoder" / "best",
    )


def _curves(folder: Path) -> None:
    records: list[dict[str, Any]] = []
    for step in (10, 20, 30):
        loss = 30.0 / step
        parts = {task.name: loss for task in TASKS} | {"gid": 0.0 if step == 20 else loss}
        line = {"step": step, "seconds": 1.5 * step, "items_per_second": 900.0 + step}
        records.append(line | {"parts": parts, "loss": loss, "padding": 0.05})
        seen = {
            "loss": loss,
            "asr/loss": loss,
            "asr/wer": 0.5,
            "mt/bleu": 20.0,
            "lid/accuracy": 1.0,
        }
        records.append({"step": step, "validation": seen})
    config = {"train": {"precision": "bf16", "optimizer": "muon", "lr": 3e-3, "max_seconds": 60.0}}
    start = {
        "time": "2026-01-01T00:00:00+00:00",
        "command": ["lm/train.py", "--out", "lm"],
        "versions": {"torch": "2.13.0"},
        "commit": "0123abc",
        "threads": 2,
        "processes": 1,
    }
    for run in ("lm", NAR, "decoder", "judge"):
        (folder / run).mkdir(exist_ok=True)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / run / "metrics.jsonl").write_text(lines)
        (folder / run / "config.json").write_text(json.dumps(config))
        (folder / run / "run.json").write_text(json.dumps({"starts": [start]}))


@pytest.fixture(scope="module")
def text(made: Path) -> str:
    path = report.write(made)
    assert path == made / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture
def tour(made: Path, tmp_path: Path) -> Path:
    """A copy to take things away from."""
    return Path(shutil.copytree(made, tmp_path / "tour"))


class _Tags(HTMLParser):
    """Collects what opens, and refuses what closes something else."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def tags(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(text)
    return parser.seen


def test_the_page_is_whole_and_loads_nothing(text: str) -> None:
    assert "Not shown" not in text
    found = tags(text)
    sources = [own["src"] for _, own in found if "src" in own]
    assert sources
    assert all(source is not None and source.startswith("data:audio/wav;") for source in sources)
    assert not [own for tag, own in found if tag in ("script", "link", "img", "iframe")]
    assert len(text) < 8_000_000


def test_players_and_figures_have_names_of_their_own(text: str) -> None:
    found = tags(text)
    players = [own["aria-label"] for tag, own in found if tag == "audio"]
    assert len(players) == 4 * 3 + 2 * 3 + 2 * 2  # by language and sex; two continued; two families
    assert len(set(players)) == len(players)
    drawn = [own["aria-label"] for tag, own in found if tag == "svg"]
    assert len(set(drawn)) == len(drawn) == 13


def test_the_same_folder_gives_the_same_bytes(made: Path, text: str) -> None:
    assert sections.render(TourFiles(made)) == text


def test_what_people_wrote_is_escaped(text: str) -> None:
    assert "<b>sentence" not in text
    assert "&lt;b&gt;sentence&lt;/b&gt;" in text
    assert "satz 4 &amp; more" in text


def test_scores_are_those_of_the_files(made: Path, text: str) -> None:
    rate = 100 * json.loads((made / "scores/asr/wer.json").read_text())["wer"]
    assert f"<strong>{rate:,.2f}</strong>" in text
    assert "scores/tts/judge.json is not there" in text
    assert "1 not measured" in text


def test_families_are_side_by_side(tour: Path) -> None:
    shown = families.section(TourFiles(tour))
    assert shown.count("<tr>") == 1 + 5  # no synthesis is scored here
    assert "0.500 and 0.500<small>0.400 to 0.600 and 0.400 to 0.600</small>" in shown
    assert "synthesized by T2V2" in shown
    assert "≤ 5<" in shown.replace("</td>", "<")
    shutil.rmtree(tour / "scores" / NAR)
    with pytest.raises(CorpusError, match="scores/t2v2/asr"):
        families.section(TourFiles(tour))


def test_the_asr_judge_is_measured_against_the_ground_truth(tour: Path) -> None:
    (tour / "scores" / "tts").mkdir()
    rates = {"utterances": 4, "cer": 0.3, "cer_interval": {"low": 0.26, "high": 0.35}}
    difference = {"difference": 0.15, "interval": {"low": 0.09, "high": 0.2}, "p_value": 0.01}
    score = {
        "synthesised": rates,
        "floor": rates | {"cer": 0.155},
        "difference": {"cer": difference},
    }
    (tour / "scores" / "tts" / "judge.json").write_text(json.dumps(score))
    found = {s.task: s for s in scores.scores(TourFiles(tour)) if not isinstance(s, tuple)}
    assert found["tts"].target == pytest.approx(25.5)
    assert not found["tts"].met
    assert found["tts"].close
    heard = {"id": "u4", "reference": "satz 4", "floor": "satz", "synthesised": "<4>"}
    (tour / "scores" / "tts" / "utterances.jsonl").write_text(json.dumps(heard) + "\n")
    shown = report.write(tour).read_text(encoding="utf-8")
    assert "The ASR judge recognized: &lt;4&gt;. In the recording: satz." in shown
    assert "15.50 on recordings" in shown
    assert "≤ 25.50" in shown
    assert "not measured" not in shown


@pytest.mark.parametrize(
    ("wer", "met", "close"), [(0.09, True, True), (0.2, False, False), (0.05, True, False)]
)
def test_a_target_is_met_by_the_score(tour: Path, wer: float, met: bool, close: bool) -> None:
    around = {"low": wer - 0.03, "high": wer + 0.03}
    score = {"utterances": 4, "wer": wer, "wer_interval": around}
    (tour / "scores" / "asr" / "wer.json").write_text(json.dumps(score))
    found = next(iter(scores.scores(TourFiles(tour))))
    assert isinstance(found, scores.Score)
    assert (found.met, found.close) == (met, close)
    line = scores.headline([found])
    assert ("✓ met" in line, "within chance" in line) == (met, close)


@pytest.mark.parametrize(
    "gone",
    [
        {"corpus/manifest.jsonl": "corpus/manifest.jsonl is not there"},
        {
            "tokens": "tokens/tokens.json is not there",
            "lm/run.json": "lm/run.json is not there",
            "hyp/tts.jsonl": "hyp/tts.jsonl is not there",
            "hyp/mt.jsonl": "hyp/mt.jsonl is not there",
            "scores/lid": "scores/lid/classify.json is not there",
            "judge": "without what is missing",
        },
        {
            "lm/best": "lm/best/config.json is not there",
            "lm/metrics.jsonl": "lm/metrics.jsonl is not there",
            "hyp/continue.decoding.json": "hyp/continue.decoding.json is not there",
            "resynthesis": "no resynthesis to compare with",
            "scores/asr": "scores/asr/wer.json is not there",
        },
    ],
)
def test_what_is_not_there_is_said(tour: Path, gone: dict[str, str]) -> None:
    for name in gone:
        path = tour / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    shown = report.write(tour).read_text(encoding="utf-8")
    assert not [message for message in gone.values() if message not in shown]
    tags(shown)


def test_an_empty_folder_has_a_page_without_numbers(tmp_path: Path) -> None:
    shown = report.write(tmp_path).read_text(encoding="utf-8")
    assert "0 of 6 targets met, 6 not measured" in shown
    assert shown.count("Not shown") == 13
    assert "<strong>" not in shown


def test_a_damaged_file_is_said_to_be(tour: Path) -> None:
    (tour / "scores" / "st" / "bleu.json").write_text('{"bleu": 1')
    shown = report.write(tour).read_text(encoding="utf-8")
    assert re.search(r"bleu\.json is damaged", shown)


def test_no_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make tour"):
        report.write(tmp_path / "none")
    assert report.main(["--folder", str(tmp_path / "none")]) == 2


def test_commands_come_from_the_tour_or_the_run(tour: Path, text: str) -> None:
    assert "python -m lm.train --out lm" in text
    steps = {"steps": [{"command": "python -m recipes.espeak --out <here>", "seconds": 75.0}]}
    (tour / "tour.json").write_text(json.dumps(steps))
    shown = learning.made_by(TourFiles(tour))
    assert "python -m recipes.espeak --out &lt;here&gt;" in shown
    assert "1 min 15 s" in shown


def test_a_task_that_did_not_come_up_leaves_a_gap() -> None:
    records = [{"step": 1, "parts": {"gid": 2.0}}, {"step": 2, "parts": {"gid": 0.0}}]
    steps, values = learning._points(records, "parts", "gid")
    assert list(steps) == [1, 2]
    assert values[0] == 2.0
    assert np.isnan(values[1])


def wav(path: Path, wave: np.ndarray) -> Clip:
    soundfile.write(path, wave, SAMPLE_RATE, subtype="PCM_16")
    return Clip(path=path)


def test_sounds_are_measured(tmp_path: Path, speech: Speech) -> None:
    good = tour_speech.measure(wav(tmp_path / "good.wav", speech(0.5)))
    assert good.seconds == pytest.approx(0.5)
    assert good.peak == pytest.approx(float(np.abs(speech(0.5)).max()), abs=1e-3)
    assert good.faults == ()
    silent = tour_speech.measure(wav(tmp_path / "silent.wav", np.zeros(1600, np.float32)))
    assert silent.faults == ("silent",)
    loud = np.clip(20 * speech(0.5), -1, 1)
    assert tour_speech.measure(wav(tmp_path / "loud.wav", loud)).faults == ("clipped",)
    full = np.zeros(1600, np.float32)
    full[::100] = 1.0  # loud, never for longer than a sample
    assert tour_speech.measure(wav(tmp_path / "full.wav", full)).faults == ()


def test_faults_and_cuts_are_shown_beside_the_player(tmp_path: Path) -> None:
    clip = wav(tmp_path / "long.wav", np.zeros(round(9.5 * SAMPLE_RATE), np.float32))
    shown = tour_speech.sound("Model", clip, label="long")
    assert "9.50 s, peak 0.00, the first 6 s of it" in shown
    assert '<strong class="bad">silent</strong>' in shown
    assert len(shown) < 6 * SAMPLE_RATE * 2 * 4 / 3 + 1000
    missing = tour_speech.sound("Model", Clip(path=tmp_path / "none.wav"), label="none")
    assert "not there" in missing
    assert "<audio" not in missing


def test_the_prompt_lasts_as_long_as_its_units(made: Path) -> None:
    tour = TourFiles(made)
    (row,) = tour.tokens(["u7"]).values()
    given = tour_speech.prompt_seconds(tour, row, prefix=6)
    assert given == pytest.approx(sum(row["durations"][:6]) / 100)
    assert tour_speech.prompt_seconds(tour, row, prefix=len(row["units"])) is None


def test_a_hypothesis_of_another_corpus_is_refused(tour: Path) -> None:
    with (tour / "hyp" / "asr.jsonl").open("a") as file:
        file.write(json.dumps({"id": "u99", "text": ""}) + "\n")
    with pytest.raises(CorpusError, match="u99"):
        TourFiles(tour).hypotheses("asr")


def test_a_sound_that_is_gone_is_said_to_be(tour: Path) -> None:
    path = tour / "hyp" / "tts.jsonl"
    lines = [json.loads(line) | {"audio": "gone.wav"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert tour_speech.synthesis(TourFiles(tour)).count("<span>not there</span>") == 4


def test_the_sound_of_a_hypothesis_is_named_from_its_file(tour: Path) -> None:
    files = TourFiles(tour)
    one = {"id": "u4", "audio": "audio-tts/u4.wav"}
    assert files.sound_of("tts", one) == tour / "hyp" / "audio-tts" / "u4.wav"
    assert files.sound_of("tts", one | {"audio": "/elsewhere.wav"}) == Path("/elsewhere.wav")
    with pytest.raises(CorpusError, match="no sound"):
        files.sound_of("tts", one | {"audio": None})
