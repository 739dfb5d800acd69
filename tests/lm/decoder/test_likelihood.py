"""Likelihoods of given targets, and the choice among candidates that rests on them."""

from dataclasses import replace

import numpy as np
import pytest

from tests.lm.conftest import World, rows
from unitone import seeding
from unitone.errors import ConfigError
from unitone.lm import family
from unitone.lm.decoder.batch import collate
from unitone.lm.decoder.layout import PromptFormatter
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.decoder.objective import NextToken
from unitone.lm.decoder.options import DecodingConfig
from unitone.lm.decoder.predictor import log_likelihoods, open_predictor
from unitone.lm.decoder.template import TASKS
from unitone.lm.tasks import select
from unitone.nn.transformer import TransformerConfig
from unitone.tokenizers.shards import TokenShards

DRAWN = DecodingConfig(temperature=1.0, candidates=4, max_tokens=12)


def test_log_likelihoods_are_those_of_the_objective(formatter: PromptFormatter) -> None:
    (task,) = select(TASKS, ["asr"])
    shape = TransformerConfig(dim=16, layers=1, heads=2, kv_heads=2, ffn=16)
    model = LanguageModel(
        ModelConfig(transformer=shape, vocab_size=len(formatter.vocabulary)),
        generator=seeding.torch_generator(0),
    ).eval()
    examples = [formatter.example(task, formatter.fields.record(row)) for row in rows(4)]
    together = log_likelihoods(model, examples)
    network = NextToken(model, vocabulary=formatter.vocabulary, tasks=["asr"])
    for example, likelihood in zip(examples, together, strict=True):
        loss = network(collate([[(0, example)]]))
        assert likelihood == pytest.approx(-float(loss.total.detach()), rel=1e-4)


def test_the_candidate_is_taken_that_recognition_likes_best(world: World) -> None:
    loaded = family.load(world.model, device="cpu")
    predictor = open_predictor(loaded, "tts", config=DRAWN)
    table = TokenShards(world.tokens).rows()
    requests = [predictor.request(loaded.fields.record(row)) for row in table][:3]
    found = predictor._generate([(request, n) for request in requests for n in range(4)])
    (asr,) = select(loaded.table, ["asr"])
    predictions = predictor.predict(requests)
    for number, (request, made) in enumerate(zip(requests, predictions, strict=True)):
        mine = found[number * 4 : number * 4 + 4]
        assert len({tuple(one.tokens) for one in mine}) > 1  # each draws from its own stream
        examples = [
            predictor.formatter.example(
                asr, {**request.record, "units": np.array(one.tokens, np.int32)}
            )
            for one in mine
            if one.tokens
        ]
        likelihoods = log_likelihoods(loaded.model, examples)
        spoken = [one for one in mine if one.tokens]
        best = spoken[int(np.argmax(likelihoods))]
        expected = predictor.formatter.prediction(predictor.row, best.tokens)
        np.testing.assert_array_equal(made.units, expected.units)


def test_what_cannot_be_checked(world: World) -> None:
    loaded = family.load(world.model, device="cpu")
    with pytest.raises(ConfigError, match="no task of this model reranks asr"):
        open_predictor(loaded, "asr", config=DRAWN)
    with pytest.raises(ConfigError, match="give a temperature"):
        open_predictor(loaded, "tts", config=replace(DRAWN, temperature=0.0))
