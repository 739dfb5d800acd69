"""Likelihoods of given targets, and the choice among candidates that rests on them."""

from dataclasses import replace

import numpy as np
import pytest

from tests.lm.conftest import World, rows
from unitone import seeding
from unitone.errors import ConfigError
from unitone.lm import family
from unitone.lm.data.mixture import collate
from unitone.lm.decoder.layout import Composer
from unitone.lm.decoder.likelihood import log_likelihoods
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.decoder.objective import NextToken
from unitone.lm.decoder.predictor import Performer
from unitone.lm.tasks import TASKS, Decoding, select
from unitone.nn.transformer import TransformerConfig
from unitone.tokenizers.shards import TokenShards

DRAWN = Decoding(temperature=1.0, candidates=4, max_tokens=12)


def test_log_likelihoods_are_those_of_the_objective(composer: Composer) -> None:
    (task,) = select(TASKS, ["asr"])
    shape = TransformerConfig(dim=16, layers=1, heads=2, kv_heads=2, ffn=16)
    model = LanguageModel(
        ModelConfig(transformer=shape, vocab_size=len(composer.vocabulary)),
        generator=seeding.torch_generator(0),
    ).eval()
    examples = [composer.example(task, composer.record(row)) for row in rows(4)]
    together = log_likelihoods(model, examples)
    player = NextToken(model, vocabulary=composer.vocabulary, tasks=["asr"])
    for example, likelihood in zip(examples, together, strict=True):
        loss = player(collate([[(0, example)]]))
        assert likelihood == pytest.approx(-float(loss.total.detach()), rel=1e-4)


def test_the_candidate_is_taken_that_recognition_likes_best(world: World) -> None:
    loaded = family.load(world.model, device="cpu")
    performer = Performer(loaded, "tts", decoding=DRAWN)
    jobs = [performer.job(row) for row in TokenShards(world.tokens).rows()][:3]
    found = performer._generate([job for job in jobs for _ in range(4)])
    (asr,) = select(loaded.tasks, ["asr"])
    for number, (job, said) in enumerate(zip(jobs, performer.run(jobs), strict=True)):
        mine = found[number * 4 : number * 4 + 4]
        assert len({tuple(one.tokens) for one in mine}) > 1  # each draws from its own stream
        examples = [
            performer.composer.example(asr, {**job.record, "units": np.array(one.tokens, np.int32)})
            for one in mine
            if one.tokens
        ]
        likelihoods = log_likelihoods(loaded.model, examples)
        spoken = [one for one in mine if one.tokens]
        best = spoken[int(np.argmax(likelihoods))]
        expected = performer.composer.output(performer.task, best.tokens)
        np.testing.assert_array_equal(said.output.units, expected.units)


def test_what_cannot_be_checked(world: World) -> None:
    loaded = family.load(world.model, device="cpu")
    with pytest.raises(ConfigError, match="no task of this model checks asr"):
        Performer(loaded, "asr", decoding=DRAWN)
    with pytest.raises(ConfigError, match="give a temperature"):
        Performer(loaded, "tts", decoding=replace(DRAWN, temperature=0.0))
