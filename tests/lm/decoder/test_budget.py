"""The budget of decoding bounds what is in memory, whatever multiplies it, and shapes no result."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.lm.conftest import World
from unitone.lm import family, train
from unitone.lm.decoder import predictor as decoder_predictor
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.options import DecodingConfig
from unitone.lm.decoder.predictor import open_predictor
from unitone.lm.jobs.train import DECODED_TOKENS
from unitone.lm.predictor import Prediction, predict_all
from unitone.nn.transformer import Cache, Stored
from unitone.tokenizers.shards import TokenShards

SEARCHES = {
    "greedy": ("asr", DecodingConfig(max_tokens=40)),
    "beams": ("asr", DecodingConfig(max_tokens=10, beam=7)),
    "guided": ("asr", DecodingConfig(max_tokens=20, guidance=1.5)),
    "guided beams": ("asr", DecodingConfig(max_tokens=10, beam=3, guidance=1.5)),
    "candidates": ("tts", DecodingConfig(max_tokens=20, temperature=1.0, candidates=40)),
}
BUDGET = 1000


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions of every cache and of every batch that is scored."""
    found: list[int] = []
    reserve, likelihoods = Cache.reserve, decoder_predictor.log_likelihoods

    def reserved(self: Cache, length: int) -> list[Stored]:
        views = reserve(self, length)
        found.append(views[0][1].shape[0] * (self.filled + length))
        return views

    def scored(model: Any, examples: Sequence[Example]) -> list[float]:
        found.append(len(examples) * max(map(len, examples)))
        return likelihoods(model, examples)

    monkeypatch.setattr(Cache, "reserve", reserved)
    monkeypatch.setattr(decoder_predictor, "log_likelihoods", scored)
    return found


@pytest.mark.slow
def test_the_budget_of_training_bounds_what_validation_decodes(
    world: World, peaks: list[int], tmp_path: Path
) -> None:
    """As the task table of VoxtLM does, the task recognizes with 15 beams."""
    row: dict[str, Any] = {
        "name": "rec",
        "template": "<bos> <task:rec> {units} <sep> [ {text} <eos> ]",
    }
    row |= {"emits": ["text"], "metric": "wer", "decoding": {"beam": 15, "max_tokens": 6}}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    found = {}
    for max_tokens in (200, 10_000):
        peaks.clear()
        options = {
            "--tokens": world.tokens,
            "--out": tmp_path / str(max_tokens),
            "--config": "lm-tiny",
            "--rows": tmp_path / "rows.json",
            "--tasks": "rec",
            "--valid-split": "train",
            "--max-tokens": max_tokens,
            "--steps": 1,
            "--validate-every": 1,
            "--device": "cpu",
        }
        assert train.main([str(word) for pair in options.items() for word in pair]) == 0
        found[max_tokens] = max(peaks)
    budget = DECODED_TOKENS * 200
    assert found[200] <= budget < found[10_000]


def said(predictions: Sequence[Prediction]) -> list[Any]:
    return [(one.text, None if one.units is None else one.units.tolist()) for one in predictions]


@pytest.mark.parametrize("search", SEARCHES)
def test_a_budget_bounds_the_positions_in_memory_and_changes_nothing(
    search: str, world: World, peaks: list[int]
) -> None:
    task, config = SEARCHES[search]
    loaded = family.load(world.model, device="cpu")
    predictor = open_predictor(loaded, task, config=config)
    table = [row for row in TokenShards(world.tokens).rows() for _ in range(3)]
    requests = [predictor.request(loaded.fields.record(row)) for row in table]
    free = predict_all(predictor, requests, max_tokens=10**9)
    assert max(peaks) > BUDGET
    peaks.clear()
    bounded = predict_all(predictor, requests, max_tokens=BUDGET)
    assert max(peaks) <= BUDGET
    assert said(bounded) == said(free)
    np.testing.assert_allclose(
        [one.score for one in bounded], [one.score for one in free], rtol=1e-4
    )
