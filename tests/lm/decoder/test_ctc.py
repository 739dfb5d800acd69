"""The auxiliary CTC loss: which positions and texts it takes, and its value example by example."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.lm.conftest import rows, vocabulary
from unitone import seeding
from unitone.lm import family
from unitone.lm import train as lm_train
from unitone.lm.data.fields import Fields
from unitone.lm.decoder.batch import collate
from unitone.lm.decoder.layout import Example, PromptFormatter
from unitone.lm.decoder.objective import SpeechCtc, recognizes
from unitone.lm.decoder.template import POLYSPEECH, TASKS, DecoderTask
from unitone.lm.tasks import select
from unitone.tokenizers.text.text import ByteText

WIDTH = 6
WORDS = vocabulary()
FORMATTER = PromptFormatter(Fields(vocabulary=WORDS, text=ByteText(), subwords=None))
ASR, MT, TTS = (select(TASKS, [name])[0] for name in ("asr", "mt", "tts"))


def ctc(tasks: tuple[DecoderTask, ...]) -> SpeechCtc:
    made = SpeechCtc(WIDTH, vocabulary=WORDS, tasks=tasks)
    generator = seeding.torch_generator(1)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return made


def spoken(units: list[int], text: str, *, task: DecoderTask = ASR) -> Example:
    record = FORMATTER.fields.record({"id": "x", "units": units, "text": text, "language": "en"})
    record |= {"to": "de", "translation": record.get("text"), "speaker": "ann"}
    return FORMATTER.example(task, record)


def expected(loss: SpeechCtc, states: torch.Tensor, example: Example) -> torch.Tensor:
    """CTC of one example by itself; its states stand at its positions."""
    units, text = WORDS.block("unit"), WORDS.block("text")
    tokens = torch.from_numpy(example.tokens.astype(np.int64))
    target = torch.from_numpy(example.target)
    speech = ~target & (
        ((tokens >= units.start) & (tokens < units.end)) | (tokens == WORDS.id("<mask>"))
    )
    written = tokens[target][:-1] - text.start + 1
    speech = speech[:-1]  # the last token, <eos>, is no input
    log_p = loss.head(states[: len(speech)][speech]).log_softmax(-1)
    found = F.ctc_loss(
        log_p, written, torch.tensor(len(log_p)), torch.tensor(len(written)), reduction="sum"
    )
    return found if bool(found.isfinite()) else torch.zeros(())


def test_which_rows_of_the_tables_write_down_what_they_hear() -> None:
    assert [task.name for task in TASKS if recognizes(task)] == ["asr"]
    assert [task.name for task in POLYSPEECH if recognizes(task)] == ["asr"]
    both = replace(ASR, template="<bos> {units} <sep> [ {translation} <sep> {text} <eos> ]")
    assert not recognizes(both)
    prompted = replace(ASR, template="<bos> {prompt_units} {units} <sep> [ {text} <eos> ]")
    assert not recognizes(prompted)


EXAMPLES = st.lists(
    st.tuples(st.lists(st.integers(0, 11), min_size=1, max_size=12), st.text("abc", min_size=1)),
    min_size=1,
    max_size=5,
)


@given(EXAMPLES, st.booleans(), st.integers(0, 99))
def test_the_sum_of_the_examples_packed_or_not(
    given_: list[tuple[list[int], str]], packed: bool, seed: int
) -> None:
    """Also where speech is too short for its text, which counts as nothing."""
    loss = ctc((MT, ASR))
    examples = [spoken(units, text) for units, text in given_]
    items = [(1, example) for example in examples]
    batch = collate([items] if packed else [[item] for item in items])
    states = torch.randn(*batch.tokens.shape, WIDTH, generator=seeding.torch_generator(seed))
    total, count = loss(states, batch)
    wanted, start = torch.zeros(()), 0
    for number, example in enumerate(examples):
        row, first = (0, start) if packed else (number, 0)
        wanted = wanted + expected(loss, states[row, first:], example)
        start += len(example) - 1
    torch.testing.assert_close(total, wanted, rtol=1e-4, atol=1e-4)
    assert int(count) == sum(len(text) for _, text in given_)


def test_other_tasks_and_hidden_speech() -> None:
    loss = ctc((ASR, MT, TTS))
    heard = spoken([1, 2, 3, 4], "ab")
    hidden = heard.tokens.copy()
    hidden[3] = WORDS.id("<mask>")
    others = [
        (1, spoken([1], "ab", task=MT)),
        (2, spoken([1, 2, 3], "ab", task=TTS)),
    ]
    batch = collate([[(0, replace(heard, tokens=hidden))], *([one] for one in others)])
    states = torch.randn(*batch.tokens.shape, WIDTH, generator=seeding.torch_generator(0))
    total, count = loss(states, batch)
    torch.testing.assert_close(total, expected(loss, states[0], heard))
    assert int(count) == 2
    states = states.requires_grad_()
    loss(states, batch)[0].backward()
    assert states.grad is not None
    assert bool((states.grad[0, 2:6] != 0).all())
    assert not bool(states.grad[1:].any() or states.grad[0, :2].any() or states.grad[0, 6:].any())


def test_a_batch_without_recognition_costs_nothing() -> None:
    loss = ctc((ASR, MT))
    batch = collate([[(1, spoken([1], "ab", task=MT))]])
    states = torch.zeros(*batch.tokens.shape, WIDTH, requires_grad=True)
    total, count = loss(states, batch)
    total.backward()
    assert float(total.detach()) == 0.0
    assert int(count) == 0


def test_vectors_are_speech_too() -> None:
    (task,) = select(POLYSPEECH, ["asr"])
    words = vocabulary(tables=POLYSPEECH)
    formatter = PromptFormatter(Fields(vocabulary=words, text=ByteText(), subwords=None))
    record = formatter.fields.record(
        {"id": "x", "features": np.ones((5, 2), np.float32), "text": "ab"}
    )
    batch = collate([[(0, formatter.example(task, record))]])
    loss = SpeechCtc(WIDTH, vocabulary=words, tasks=[task])
    states = torch.zeros(*batch.tokens.shape, WIDTH)
    total, count = loss(states, batch)
    # an untrained head is uniform: 2 characters and blanks on 5 frames can be written in 35 ways
    assert float(total.detach()) == pytest.approx(5 * np.log(257) - np.log(35), rel=1e-5)
    assert int(count) == 2


def test_training_with_it(make_shards: Callable[..., Path], tmp_path: Path) -> None:
    long = [  # CTC wants no fewer units than bytes of text
        row | {"units": row["units"] * 3, "durations": row["durations"] * 3} for row in rows(24)
    ]
    data, out = make_shards(long), tmp_path / "run"
    small = [
        *("--config", "lm-tiny", "--max-tokens", "512", "--window-examples", "64"),
        *("--valid-utterances", "2", "--threads", "1", "--device", "cpu", "--log-every", "1"),
    ]
    arguments = ["--tokens", str(data), "--out", str(out), *small, "--steps", "2"]
    assert lm_train.main([*arguments, "--tasks", "asr", "mt", "--ctc", "0.3"]) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert any(line.get("parts", {}).get("ctc", 0) > 0 for line in lines)
    (validation,) = [line["validation"] for line in lines if "validation" in line]
    tasks = (validation["asr/loss"], validation["mt/loss"])
    assert validation["loss"] == pytest.approx(sum(tasks) / 2)  # of the tasks alone
    assert validation["ctc/loss"] > 0
    assert family.load(out / "last", device="cpu").table == select(TASKS, ["asr", "mt"])
    saved = load_file(out / "last" / "model.safetensors")
    assert not any(weight.shape[0] == 257 for weight in saved.values())  # bytes and blank: the head


def test_what_cannot_be_trained_with_it(
    make_shards: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, named = make_shards(rows(8)), tmp_path / "rows.json"
    row = {"name": "ctc", "template": ASR.template, "emits": ["text"], "metric": "wer"}
    named.write_text(json.dumps([row]), encoding="utf-8")
    arguments = ["--tokens", str(data), "--out", str(tmp_path / "run"), "--config", "lm-tiny"]
    for options, complaint in (
        (("--tasks", "mt", "--ctc", "0.3"), "no task writes down speech"),
        (("--rows", str(named), "--ctc", "0.3"), "a task has this name too"),
        (("--ctc", "-1"), "--ctc must be 0 or more"),
    ):
        assert lm_train.main([*arguments, *options]) == 2
        assert complaint in capsys.readouterr().err
