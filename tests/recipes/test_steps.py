"""Steps: the command line that is printed says the configuration that runs; errors name it."""

import dataclasses
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitone.codecs.encode import EncodeConfig as CodesConfig
from unitone.codecs.synthesize import SynthesizeConfig
from unitone.codecs.train import DecoderTrainConfig
from unitone.config import arguments, command_line
from unitone.corpus.cuts import CutsConfig
from unitone.corpus.perturb import PerturbConfig
from unitone.errors import ConfigError, CorpusError, UnitoneError
from unitone.eval.bleu import BleuConfig
from unitone.eval.classify import ClassifyConfig
from unitone.eval.judge_score import JudgeScoreConfig
from unitone.eval.judge_train import JudgeTrainConfig
from unitone.eval.wer import WerConfig
from unitone.lm.average import AverageConfig
from unitone.lm.decode import DecodeConfig
from unitone.lm.decoder.options import DecoderConfig, DecodingConfig
from unitone.lm.export import ExportConfig
from unitone.lm.memory import MemoryConfig
from unitone.recipes.espeak.corpus import EspeakCommand
from unitone.recipes.fsdd import FsddConfig
from unitone.recipes.one_or_many import OneOrManyConfig
from unitone.recipes.steps import Step
from unitone.recipes.tour.tour import TourConfig
from unitone.tokenizers.build import BuildConfig
from unitone.tokenizers.encode import EncodeConfig
from unitone.tokenizers.features import FeaturesConfig

CONFIGS = [
    *(AverageConfig, BleuConfig, BuildConfig, ClassifyConfig, CodesConfig, CutsConfig),
    *(DecodeConfig[DecodingConfig], DecoderTrainConfig, EncodeConfig, EspeakCommand, ExportConfig),
    *(FeaturesConfig, FsddConfig, JudgeScoreConfig, JudgeTrainConfig, DecoderConfig, MemoryConfig),
    *(OneOrManyConfig, PerturbConfig, SynthesizeConfig, TourConfig, WerConfig),
]
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1).filter(
    lambda word: word != "None"  # what an option is given that has no value
)


def plain(word: str | Path) -> bool:
    """Tell whether ``word`` may stand among the several values of an option."""
    return not str(word).startswith("-")


def values(kind: Any, *, among: bool = False) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a field of type ``kind``."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.one_of([values(part, among=among) for part in parts])
    if origin is Literal:
        return st.sampled_from(parts)
    if origin is tuple and parts[-1] is ...:
        return st.lists(values(parts[0], among=True), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(values(part, among=True) for part in parts))
    if origin is dict:
        return st.dictionaries(WORDS.filter(plain), values(parts[1]), min_size=1, max_size=3)
    found: st.SearchStrategy[Any] = {
        type(None): st.none(),
        bool: st.booleans(),
        int: st.integers(-3, 10_000),
        float: st.floats(allow_nan=False, allow_infinity=False)
        | st.floats(min_value=0, max_value=1),
        str: WORDS,
        Path: WORDS.map(Path),
    }[kind]
    return found.filter(plain) if among and kind in (str, Path) else found


def required(kind: Any) -> Any:
    """Return the configuration with the least that has to be said; generic ones are filled in."""
    origin = get_origin(kind) or kind
    filled = dict(zip(getattr(origin, "__parameters__", ()), get_args(kind), strict=True))
    hints = {name: filled.get(hint, hint) for name, hint in get_type_hints(origin).items()}
    found: dict[str, Any] = {}
    if kind is FsddConfig:  # one of two is required
        found["root"] = Path("some")
    for field in dataclasses.fields(origin):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            hint: Any = hints[field.name]
            found[field.name] = (
                required(hint) if hasattr(hint, "__dataclass_fields__") else hint("1")
            )
    return kind(**found)


def places(config: Any) -> Iterator[tuple[str, ...]]:
    """Yield the way to every option, through nested configurations."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        inner = places(value) if dataclasses.is_dataclass(value) else [()]
        yield from ((field.name, *rest) for rest in inner)


def changed(config: Any, place: tuple[str, ...], data: st.DataObject) -> Any:
    """Return ``config`` with another value at ``place``, the same where none was found."""
    name, *rest = place
    if rest:
        value = changed(getattr(config, name), tuple(rest), data)
    else:
        value = data.draw(values(get_type_hints(type(config))[name]), label=name)
    try:
        return dataclasses.replace(config, **{name: value})
    except ConfigError:  # a combination that can't be
        return config


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
@given(data=st.data())
@settings(max_examples=10)
def test_the_command_line_of_a_configuration_gives_it_back(kind: Any, data: st.DataObject) -> None:
    config = required(kind)
    ways = st.lists(st.sampled_from(list(places(config))), max_size=6, unique=True)
    for place in data.draw(ways):
        config = changed(config, place, data)
    assert command_line(kind, arguments(config), None) == config


def fail(config: PerturbConfig) -> None:
    raise CorpusError(f"{config.manifest} is empty")


def interrupted(config: PerturbConfig) -> None:
    raise KeyboardInterrupt


def test_a_step_that_fails_says_at_which_command_it_stopped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = PerturbConfig(manifest=Path("a b.jsonl"), out=Path("out"), speeds=(0.5,))
    with pytest.raises(UnitoneError) as found:
        Step(config, fail).execute()
    assert found.value.exit_status == 1
    assert str(found.value).startswith("stopped at: python -m unitone.")
    assert str(found.value).endswith(" --manifest 'a b.jsonl' --out out --speeds 0.5")
    assert "error: a b.jsonl is empty\n" in capsys.readouterr().err


def test_an_interruption_goes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        Step(PerturbConfig(manifest=Path("a"), out=Path("b")), interrupted).execute()


def test_a_step_runs_its_function_with_its_configuration() -> None:
    seen: list[PerturbConfig] = []
    config = PerturbConfig(manifest=Path("a"), out=Path("b"))

    def note(config: PerturbConfig) -> None:
        seen.append(config)

    assert Step(config, note).execute() >= 0
    assert seen == [config]
