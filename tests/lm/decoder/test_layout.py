from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lm.conftest import rows, vocabulary
from unitone.errors import ConfigError, CorpusError
from unitone.lm.decoder.codes import Pattern, delay, undelay
from unitone.lm.decoder.layout import Composer
from unitone.lm.decoder.model import NONE
from unitone.lm.tasks import CLASSES, POLYSPEECH, TASKS, VOXTLM, Task
from unitone.tokenizers.text.text import ByteText, CharacterText

BY_NAME = {task.name: task for task in TASKS}


def record(
    composer: Composer, number: int = 1, codes: np.ndarray | None = None, **changes: Any
) -> dict[str, Any]:
    made = composer.record(rows(number + 1)[number] | {"codes": codes})
    made |= {"to": "de", "translation": made["translations"].get("de")}
    return made | changes


def spelled(composer: Composer, tokens: np.ndarray) -> list[str]:
    return [composer.vocabulary.describe(int(token)) for token in tokens]


def test_asr_as_the_template_says(composer: Composer) -> None:
    example = composer.example(BY_NAME["asr"], record(composer))
    words = spelled(composer, example.tokens)
    assert words[:2] == ["<bos>", "<task:asr>"]
    assert all(word.startswith("unit:") for word in words[2:8])
    assert words[8] == "<sep>"
    assert words[-1] == "<eos>"
    assert not example.target[:9].any()
    assert example.target[9:].all()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_what_is_composed_can_be_read_back(task: Task, composer: Composer) -> None:
    given = record(composer)
    example = composer.example(task, given)
    output = composer.output(task, example.tokens[example.target].tolist())
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
def test_a_prompt_is_the_head_of_its_example(task: Task, composer: Composer) -> None:
    given = record(composer)
    example, prompt = composer.example(task, given), composer.prompt(task, given)
    np.testing.assert_array_equal(example.tokens[: len(prompt)], prompt.tokens)
    assert example.target[len(prompt)]
    longer = composer.prompt(task, given, prefix=1)
    assert len(longer) == len(prompt) + 1


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_only_the_target_may_be_generated(task: Task, composer: Composer) -> None:
    example = composer.example(task, record(composer))
    allowed = composer.allowed(task).numpy()
    assert allowed[example.tokens[example.target]].all()
    assert not allowed[composer.vocabulary.id("<pad>")]


def test_the_null_condition_keeps_classes_and_target(composer: Composer) -> None:
    task = BY_NAME["tts"]
    null = composer.example(task, record(composer), null=True)
    words = spelled(composer, null.tokens)
    assert words[:6] == [
        *("<bos>", "<task:tts>", "<language:en>", "<speaker:ann>", "<mask>", "<sep>")
    ]
    whole = composer.example(task, record(composer))
    np.testing.assert_array_equal(null.tokens[null.target], whole.tokens[whole.target])


def test_a_null_condition_has_no_features() -> None:
    composer = Composer(vocabulary=vocabulary(tables=POLYSPEECH), text=ByteText(), pieces=None)
    given = record(composer, features=np.ones((4, 3), np.float32))
    null = composer.example(POLYSPEECH[0], given, null=True)
    assert not null.vectors
    assert spelled(composer, null.tokens)[:3] == ["<task:asr>", "<mask>", "<sep>"]
    longer = composer.prompt(POLYSPEECH[0], given, prefix=2)
    assert longer.vectors["features"][1].tolist() == [False, True, True, True, True, *[False] * 3]


def test_continuous_features_stand_at_their_positions() -> None:
    composer = Composer(vocabulary=vocabulary(tables=POLYSPEECH), text=ByteText(), pieces=None)
    features = np.ones((4, 3), np.float32)
    example = composer.example(POLYSPEECH[0], record(composer, features=features))
    values, where = example.vectors["features"]
    np.testing.assert_array_equal(values, features)
    np.testing.assert_array_equal(np.flatnonzero(where), [1, 2, 3, 4])


def test_voxtlm_layout() -> None:
    composer = Composer(vocabulary=vocabulary(tables=VOXTLM), text=ByteText(), pieces=None)
    words = spelled(composer, composer.example(VOXTLM[1], record(composer)).tokens)
    assert words[0] == "<startoftext>"
    assert "<generatespeech>" in words
    assert "<bos>" not in words


@given(levels=st.integers(1, 5), frames=st.integers(1, 6), data=st.data())
def test_delay_can_be_undone(levels: int, frames: int, data: st.DataObject) -> None:
    flat = data.draw(
        st.lists(st.integers(0, 9), min_size=levels * frames, max_size=levels * frames)
    )
    codes = np.array(flat, np.int32).reshape(levels, frames)
    shifted = delay(codes)
    assert shifted.shape == (frames + levels - 1, levels)
    assert (shifted == NONE).sum() == levels * (levels - 1)
    np.testing.assert_array_equal(undelay(shifted), codes)


@pytest.mark.parametrize("pattern", ["flat", "delay"])
def test_codec_codes_as_a_condition(pattern: Pattern) -> None:
    task = Task(
        name="asr",
        template="<bos> {codes} <sep> [ {text} <eos> ]",
        emits=("text",),
        metric="wer",
    )
    words = vocabulary(codes=(4, 4))
    composer = Composer(vocabulary=words, text=ByteText(), pieces=None, pattern=pattern)
    codes = np.array([[0, 1, 2], [3, 2, 1]])
    example = composer.example(task, record(composer, codes=codes))
    first, second = words.codes
    if pattern == "flat":
        assert example.tokens[1:4].tolist() == [first.start, second.start + 3, first.start + 1]
    else:
        assert example.tokens.shape[1] == 2
        assert example.tokens[1].tolist() == [first.start, NONE]
        assert example.tokens[2].tolist() == [first.start + 1, second.start + 3]
        assert (example.tokens[-1] == [words.eos_id, NONE]).all()


def test_bad_input_names_the_thing(composer: Composer) -> None:
    unknown = CharacterText.train(["abc"])
    odd = Composer(vocabulary=vocabulary(), text=ByteText(), pieces=None)
    odd.text = unknown
    with pytest.raises(CorpusError, match=r"r1: character 'd' \(U\+0064\)"):
        odd.record(rows(2)[1])
    with pytest.raises(CorpusError, match="r1: id 99 is not in block 'unit'"):
        composer.record(rows(2)[1] | {"units": [99]})
    with pytest.raises(ConfigError, match=r"<language:xx>.*<language:de>, <language:en>"):
        composer.example(BY_NAME["mt"], record(composer, to="xx"))
    lacking = Composer(vocabulary=vocabulary(tables=TASKS[:2]), text=ByteText(), pieces=None)
    with pytest.raises(ConfigError, match=r"<task:mt>.*<task:asr>, <task:tts>"):
        lacking.check(BY_NAME["mt"])
    with pytest.raises(ConfigError, match="text tokens, the tokenizer 4"):
        Composer(vocabulary=vocabulary(), text=unknown, pieces=None)
