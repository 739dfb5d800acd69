from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lm.conftest import rows, vocabulary
from unitone.errors import ConfigError, CorpusError
from unitone.lm.data.fields import Fields
from unitone.lm.decoder.codes import delay
from unitone.lm.decoder.layout import PromptFormatter
from unitone.lm.decoder.model import NONE
from unitone.lm.decoder.template import POLYSPEECH, TASKS, VOXTLM, DecoderTask
from unitone.lm.options import Pattern
from unitone.lm.tasks import CLASSES
from unitone.tokenizers.text.text import ByteText, CharacterText

BY_NAME = {task.name: task for task in TASKS}


def record(
    formatter: PromptFormatter, number: int = 1, codes: np.ndarray | None = None, **changes: Any
) -> dict[str, Any]:
    made = formatter.fields.record(rows(number + 1)[number] | {"codes": codes})
    made |= {"to": "de", "translation": made["translations"].get("de")}
    return made | changes


def spelled(formatter: PromptFormatter, tokens: np.ndarray) -> list[str]:
    return [formatter.vocabulary.describe(int(token)) for token in tokens]


def test_asr_as_the_template_says(formatter: PromptFormatter) -> None:
    example = formatter.example(BY_NAME["asr"], record(formatter))
    words = spelled(formatter, example.tokens)
    assert words[:2] == ["<bos>", "<task:asr>"]
    assert all(word.startswith("unit:") for word in words[2:8])
    assert words[8] == "<sep>"
    assert words[-1] == "<eos>"
    assert not example.target[:9].any()
    assert example.target[9:].all()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_what_is_composed_can_be_read_back(task: DecoderTask, formatter: PromptFormatter) -> None:
    given = record(formatter)
    example = formatter.example(task, given)
    output = formatter.prediction(task, example.tokens[example.target].tolist())
    if task.output == "units":
        assert output.units is not None
        np.testing.assert_array_equal(output.units, rows(2)[1]["units"])
    elif task.output in CLASSES:
        assert output.label == given[task.output]
    else:
        row = rows(2)[1]
        truth = row["text"] if task.output == "text" else row["translation"][0]["text"]
        assert output.text == truth


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_prompt_is_the_head_of_its_example(task: DecoderTask, formatter: PromptFormatter) -> None:
    given = record(formatter)
    example, prompt = formatter.example(task, given), formatter.prompt(task, given)
    np.testing.assert_array_equal(example.tokens[: len(prompt)], prompt.tokens)
    assert example.target[len(prompt)]
    longer = formatter.prompt(task, given, prefix=1)
    assert len(longer) == len(prompt) + 1


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_only_the_target_may_be_generated(task: DecoderTask, formatter: PromptFormatter) -> None:
    example = formatter.example(task, record(formatter))
    allowed = formatter.allowed(task).numpy()
    assert allowed[example.tokens[example.target]].all()
    assert not allowed[formatter.vocabulary.id("<pad>")]


def test_the_null_condition_keeps_classes_and_target(formatter: PromptFormatter) -> None:
    task = BY_NAME["tts"]
    null = formatter.example(task, record(formatter), null=True)
    words = spelled(formatter, null.tokens)
    assert words[:6] == [
        *("<bos>", "<task:tts>", "<language:en>", "<speaker:ann>", "<mask>", "<sep>")
    ]
    whole = formatter.example(task, record(formatter))
    np.testing.assert_array_equal(null.tokens[null.target], whole.tokens[whole.target])


def test_a_null_condition_has_no_features() -> None:
    formatter = PromptFormatter(
        Fields(vocabulary=vocabulary(tables=POLYSPEECH), text=ByteText(), subwords=None)
    )
    given = record(formatter, features=np.ones((4, 3), np.float32))
    null = formatter.example(POLYSPEECH[0], given, null=True)
    assert not null.vectors
    assert spelled(formatter, null.tokens)[:3] == ["<task:asr>", "<mask>", "<sep>"]
    longer = formatter.prompt(POLYSPEECH[0], given, prefix=2)
    assert longer.vectors["features"][1].tolist() == [False, True, True, True, True, *[False] * 3]


def test_continuous_features_stand_at_their_positions() -> None:
    formatter = PromptFormatter(
        Fields(vocabulary=vocabulary(tables=POLYSPEECH), text=ByteText(), subwords=None)
    )
    features = np.ones((4, 3), np.float32)
    example = formatter.example(POLYSPEECH[0], record(formatter, features=features))
    values, where = example.vectors["features"]
    np.testing.assert_array_equal(values, features)
    np.testing.assert_array_equal(np.flatnonzero(where), [1, 2, 3, 4])


def test_voxtlm_layout() -> None:
    formatter = PromptFormatter(
        Fields(vocabulary=vocabulary(tables=VOXTLM), text=ByteText(), subwords=None)
    )
    words = spelled(formatter, formatter.example(VOXTLM[1], record(formatter)).tokens)
    assert words[0] == "<startoftext>"
    assert "<generatespeech>" in words
    assert "<bos>" not in words


@given(levels=st.integers(1, 5), frames=st.integers(1, 6), data=st.data())
def test_a_delay_shifts_each_level(levels: int, frames: int, data: st.DataObject) -> None:
    flat = data.draw(
        st.lists(st.integers(0, 9), min_size=levels * frames, max_size=levels * frames)
    )
    codes = np.array(flat, np.int32).reshape(levels, frames)
    shifted = delay(codes)
    assert shifted.shape == (frames + levels - 1, levels)
    assert (shifted == NONE).sum() == levels * (levels - 1)
    for level, row in enumerate(codes):
        np.testing.assert_array_equal(shifted[level : level + frames, level], row)


@pytest.mark.parametrize("pattern", ["flat", "delay"])
def test_codec_codes_as_a_condition(pattern: Pattern) -> None:
    task = DecoderTask(
        name="asr",
        template="<bos> {codes} <sep> [ {text} <eos> ]",
        emits=("text",),
        metric="wer",
    )
    words = vocabulary(codes=(4, 4))
    formatter = PromptFormatter(
        Fields(vocabulary=words, text=ByteText(), subwords=None), pattern=pattern
    )
    codes = np.array([[0, 1, 2], [3, 2, 1]])
    example = formatter.example(task, record(formatter, codes=codes))
    first, second = words.codes
    if pattern == "flat":
        assert example.tokens[1:4].tolist() == [first.start, second.start + 3, first.start + 1]
    else:
        assert example.tokens.shape[1] == 2
        assert example.tokens[1].tolist() == [first.start, NONE]
        assert example.tokens[2].tolist() == [first.start + 1, second.start + 3]
        assert (example.tokens[-1] == [words.eos_id, NONE]).all()


def test_bad_input_names_the_thing(formatter: PromptFormatter) -> None:
    unknown = CharacterText.train(["abc"])
    odd = PromptFormatter(Fields(vocabulary=vocabulary(), text=ByteText(), subwords=None))
    odd.fields.text = unknown
    with pytest.raises(CorpusError, match=r"r1: character 'd' \(U\+0064\)"):
        odd.fields.record(rows(2)[1])
    with pytest.raises(CorpusError, match="r1: id 99 is not in block 'unit'"):
        formatter.fields.record(rows(2)[1] | {"units": [99]})
    with pytest.raises(ConfigError, match=r"<language:xx>.*<language:de>, <language:en>"):
        formatter.example(BY_NAME["mt"], record(formatter, to="xx"))
    lacking = PromptFormatter(
        Fields(vocabulary=vocabulary(tables=TASKS[:2]), text=ByteText(), subwords=None)
    )
    with pytest.raises(ConfigError, match=r"<task:mt>.*<task:asr>, <task:tts>"):
        lacking.check(BY_NAME["mt"])
    with pytest.raises(ConfigError, match="text tokens, the tokenizer 4"):
        PromptFormatter(Fields(vocabulary=vocabulary(), text=unknown, subwords=None))
