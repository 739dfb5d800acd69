"""A new model family is a folder: a unigram model over text, found, trained, loaded and decoded.

The sources below are the whole family. Nothing else knows of it.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lm.conftest import rows
from unitone import lm
from unitone.errors import ConfigError
from unitone.eval import wer
from unitone.lm import decode, export, families, family
from unitone.lm import train as lm_train

FILES = {
    "__init__": 'PREFIX = "toy-"',
    "model": """
from dataclasses import dataclass
import torch
@dataclass(frozen=True, kw_only=True)
class Config:
    vocab_size: int
    context: int = 64
class Unigram(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.logits = torch.nn.Parameter(torch.zeros(config.vocab_size))
""",
    "options": """
from dataclasses import dataclass
SIZES = ("toy-unigram",)
@dataclass(frozen=True, kw_only=True)
class Options:
    smooth: float = 0.0
@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    length: int = 1
""",
    "objective": """
import torch
from unitone.train.trainer import Loss
class Objective(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, tokens):
        total, count = -self.model.logits.log_softmax(-1)[tokens].sum(), torch.tensor(len(tokens))
        return Loss(total=total, count=count, parts={"guess": (total.detach(), count)})
""",
    "batch": """
import numpy as np, torch
class Batching:
    longest, capacity = 63, None
    def fields(self, task):
        return ("text",)
    def cost(self, task, sizes):
        return sizes("text")
    def example(self, task, record, generator):
        return record["text"]
    def collate(self, rows):
        return torch.from_numpy(np.concatenate([text for row in rows for _, text in row])).long()
""",
    "predictor": """
from dataclasses import asdict
from types import SimpleNamespace
from unitone.lm.predictor import Prediction
from unitone.lm.toy.options import DecodingConfig
from unitone.lm.tasks import Task
TASK = Task(name="guess", inputs=(), output="text", metric="wer")
TABLE = (SimpleNamespace(task=TASK, name="guess"),)
class Predictor:
    task = TASK
    def __init__(self, model, fields, config=DecodingConfig()):
        self.model, self.fields, self.config, self.settings = model, fields, config, asdict(config)
    def request(self, record, *, prefix=0):
        return SimpleNamespace(id=record["id"], to=None)
    def batches(self, requests, *, max_tokens):
        return [[number] for number in range(len(requests))]
    def predict(self, requests, *, max_tokens=0):
        likeliest = [int(self.model.logits.argmax())] * self.config.length
        return [Prediction(text=self.fields.text_of(likeliest)) for _ in requests]
def open_predictor(loaded, task, *, config=DecodingConfig(), seed=0, careful=False):
    return Predictor(loaded.model, loaded.fields, config)
""",
    "weights": """
from unitone.config import from_dict, to_dict
from unitone.lm.toy.model import Config, Unigram
from unitone.lm.toy.predictor import TABLE
def to_json(model, table):
    return {"toy": to_dict(model.config)}
def from_json(values, *, where):
    return Unigram(from_dict(Config, values["toy"], where=where)), TABLE
def describe(model, vocabulary, *, dtype):
    return {}
def layouts(table):
    return {}
def to_tensors(model):
    return dict(model.state_dict())
def load_tensors(model, tensors, *, where):
    model.load_state_dict(tensors)
""",
    "training": """
from unitone.lm.toy.batch import Batching
from unitone.lm.toy.model import Config, Unigram
from unitone.lm.toy.objective import Objective
from unitone.lm.toy.predictor import TABLE, Predictor
from unitone.lm.jobs.training import Training, open_stores, open_words
def prepare(config, world):
    words = open_words(config, tokens=(), fields=())
    train, valid = open_stores(config, words, world)
    model = Unigram(Config(vocab_size=len(words.vocabulary)))
    return Training(words=words, model=model, objective=Objective(model), table=TABLE, train=train,
                    valid=valid, batching=Batching(), plain=Batching(),
                    predictor=lambda task: Predictor(model, words.fields))
""",
}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "families" / "toy"
    folder.mkdir(parents=True)
    for name, source in FILES.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.setattr(lm, "__path__", [*lm.__path__, str(folder.parent)])
    yield
    import sys

    for name in [name for name in sys.modules if name.startswith("unitone.lm.toy")]:
        del sys.modules[name]
    lm.__dict__.pop("toy", None)


def test_a_folder_is_a_family(
    toy: None, make_shards: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert families.names() == {"decoder": "lm-", "t2v2": "t2v2-", "toy": "toy-"}
    table = [row | {"text": "aaab"} for row in rows(16)]
    shards, out, hyp = make_shards(table), tmp_path / "run", tmp_path / "hyp.jsonl"
    train = ["--config", "toy-unigram", "--tokens", str(shards), "--out", str(out), "--steps", "30"]
    train += ["--optimizer", "adamw", "--lr", "0.3", "--warmup-steps", "1"]
    train += ["--threads", "1", "--device", "cpu"]
    assert lm_train.main(train) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    (validation,) = [line["validation"] for line in lines if "validation" in line]
    assert validation["guess/loss"] < 1.0
    assert validation["guess/wer"] == 1.0  # "a" is no "aaab"

    loaded = family.load(out / "best", device="cpu")
    assert (loaded.family, [task.name for task in loaded.tasks]) == ("toy", ["guess"])
    assert "sequence" not in (out / "best" / "README.md").read_text()  # which it has not
    arguments = ["--model", str(out), "--task", "guess", "--tokens", str(shards)]
    assert decode.main([*arguments, "--out", str(hyp), "--length", "4", "--device", "cpu"]) == 0
    assert {json.loads(line)["text"] for line in hyp.read_text().splitlines()} == {"aaaa"}
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in table))
    scored = ["--ref", str(manifest), "--hyp", str(hyp), "--out", str(tmp_path / "scores")]
    assert wer.main(scored) == 0
    assert json.loads((tmp_path / "scores" / "wer.json").read_text())["cer"] == 0.25

    capsys.readouterr()
    assert export.main(["--model", str(out), "--out", str(tmp_path / "plain")]) == 2
    assert "only decoder-only models" in capsys.readouterr().err
    start = ["--init", str(out), "--tokens", str(shards), "--out", str(tmp_path / "tuned")]
    assert lm_train.main([*start, "--tasks", "asr", "--device", "cpu"]) == 2
    assert "a model of the family 'toy' is no start" in capsys.readouterr().err

    for command, words, own, other in (
        (lm_train, ["--config", "toy-unigram"], "--smooth", "--label-smoothing"),
        (decode, ["--model", str(out)], "--length", "--beam"),
    ):
        with pytest.raises(SystemExit, match="0"):
            command.main([*words, "--help"])
        text = capsys.readouterr().out
        assert own in text
        assert f"{other} " not in text  # of another family


def test_the_family_lines_are_few() -> None:
    assert sum(len(source.strip().splitlines()) for source in FILES.values()) < 100


def test_a_size_of_no_family_is_refused(toy: None) -> None:
    with pytest.raises(ConfigError, match=r"--config t2v-x: no model size.*lm-…, t2v2-…, toy-…"):
        families.of_size("t2v-x")


def test_a_directory_of_an_unknown_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"family": "sttatts"}')
    with pytest.raises(ConfigError, match="family 'sttatts'; this version has decoder"):
        families.of_directory(tmp_path)
