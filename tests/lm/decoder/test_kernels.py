"""What `prepare` makes of a model: in int8, and for a single row."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unitone.errors import ConfigError
from unitone.lm.decoder import kernels
from unitone.lm.decoder.generation import generate, prepare
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.decoder.template import Decoding
from unitone.lm.interop.opt import OptConfig, OptModel
from unitone.nn.transformer import TransformerConfig

VOCAB, EOS = 20, 3
SHAPE = TransformerConfig(dim=64, layers=2, heads=4, kv_heads=2, ffn=128)


def tiny() -> LanguageModel:
    """Return a random model whose next token depends on what came before."""
    config = ModelConfig(transformer=SHAPE, vocab_size=VOCAB, context=64)
    model = LanguageModel(config, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6.0)
    return model.eval()


def prompts_of(*lengths: int) -> list[Example]:
    drawn = np.random.default_rng(3)
    tokens = [drawn.integers(4, VOCAB, length).astype(np.int32) for length in lengths]
    return [Example(tokens=one, target=np.zeros(len(one), bool)) for one in tokens]


def said(
    model: LanguageModel | OptModel, prompts: list[Example], *, beam: int = 1
) -> list[list[int]]:
    allowed, decoding = torch.ones(VOCAB, dtype=torch.bool), Decoding(max_tokens=15, beam=beam)
    found = generate(model, prompts, allowed=allowed, eos=EOS, decoding=decoding)
    return [one.tokens for one in found]


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_int8_is_near_and_searches_alike(kind: str) -> None:
    model: LanguageModel | OptModel = tiny()
    if kind == "opt":
        shape = replace(SHAPE, kv_heads=SHAPE.heads)
        config = OptConfig(transformer=shape, vocab_size=VOCAB, context=64, embed_dim=32)
        model = OptModel(config, generator=torch.Generator().manual_seed(1)).eval()
    ready = prepare(model, int8=True)
    tokens = torch.arange(4, 20).repeat(2, 1)
    with torch.inference_mode():
        expected, found = model(tokens), ready(tokens)
        cache = ready.cache(rows=1, slots=4)
        parts = [ready(tokens[:1, place : place + 1], cache=cache) for place in range(16)]
    for states in (found, torch.cat(parts, 1)):
        assert torch.cosine_similarity(states, expected[: len(states)], dim=-1).min() > 0.995
    assert not torch.equal(found, expected)
    prompts = prompts_of(4, 9, 2, 6)
    assert said(ready, prompts) == [said(ready, [one])[0] for one in prompts]
    assert said(ready, prompts, beam=3) == [said(ready, [one], beam=3)[0] for one in prompts]


def test_int8_is_for_fp32() -> None:
    with pytest.raises(ConfigError, match="fp32 on a CPU"):
        prepare(tiny().to(torch.bfloat16), int8=True)


def test_without_its_products_int8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "has_int8", lambda: False)
    with pytest.raises(ConfigError, match="use --precision fp32"):
        prepare(tiny(), int8=True)


@torch.inference_mode()
@pytest.mark.parametrize("plain", [True, False])
def test_a_single_row_is_what_rows_are(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "plain_is_faster", lambda dtype: plain)
    model, tokens = tiny(), torch.arange(4, 20)[None]
    ready = prepare(model)
    cache = ready.cache(rows=1, slots=4)
    parts = [ready(tokens[:, place : place + 1], cache=cache) for place in range(16)]
    assert torch.allclose(torch.cat(parts, 1), model(tokens), rtol=1e-4, atol=1e-4)
