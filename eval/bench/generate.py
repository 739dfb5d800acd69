"""Greedy decoding of our model against Transformers' ``LlamaForCausalLM.generate``.

``python -m unitone.eval.bench.generate``: both get the same random weights and prompts, the same
number of threads and of new tokens, and take turns; the table shows the median and the ratio.
Tokens are compared one by one. In bf16 the two round differently, and after the first tie that
falls the other way the rest differs, so what is compared there is what came before.

In int8 ours is timed against Transformers in bf16, and its tokens are compared with ours in fp32.

A step can't be shorter than reading its weights takes; the last column says how much of a step that
is (`unitone.eval.bench.limits`).
"""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unitone import seeding
from unitone.config import command_line
from unitone.eval.bench.limits import read_rate
from unitone.lm.decoder.generation import generate, prepare
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.model import LanguageModel, size
from unitone.lm.decoder.template import Decoding
from unitone.lm.interop.llama import to_llama
from unitone.nn.int8 import has_int8

GOAL = 2.0
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}
"""Of Transformers."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    size: str = "lm-small"
    """Name of the model's shape."""
    vocab_size: int = 1000
    batches: tuple[int, ...] = (1, 16)
    prompt: int = 64
    """Tokens of each prompt."""
    new: int = 128
    """Tokens to generate for each."""
    threads: int = 2
    repeats: int = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    precision: str
    batch: int
    theirs: float
    """Seconds of a run, median."""
    ours: float
    reading: float
    """Seconds of reading the weights once."""
    same: float
    """Share of the tokens that are equal, up to the first that differs in each row."""


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; the exit status is 0 whether or not the goal is reached."""
    config = command_line(BenchConfig, argv, __doc__)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(config.threads)
    print(
        f"greedy decoding, {config.size}, prompts of {config.prompt}, {config.new} new tokens, "
        f"{config.threads} threads, torch {torch.__version__}, median of {config.repeats}"
    )
    print("precision  batch  transformers    unitone   ratio  tokens equal  reading weights")
    for precision in DTYPES if has_int8() else ("fp32", "bf16"):
        for batch in config.batches:
            row = measure(config, precision=precision, batch=batch)
            per = 1000 / config.new
            print(
                f"{precision:9}  {batch:5}  {row.theirs * per:9.2f} ms  {row.ours * per:6.2f} ms"
                f"  {row.theirs / row.ours:6.2f}  {row.same:12.1%}"
                f"  {row.reading * 1000:5.2f} ms {row.reading * config.new / row.ours:5.0%}"
            )
    print(f"milliseconds a step of the whole batch; the goal is a ratio of {GOAL:g}")
    return 0


def measure(config: BenchConfig, *, precision: str, batch: int) -> Row:
    """Let the two take turns."""
    model, reference = _models(config, DTYPES[precision])
    int8 = precision == "int8"
    if not int8:
        model = model.to(DTYPES[precision])
    drawn = seeding.stream(0, "prompts").integers(0, config.vocab_size, (batch, config.prompt))
    sides: dict[str, Callable[[int], list[list[int]]]] = {
        "theirs": _theirs(reference, torch.from_numpy(drawn)),
        "ours": _ours(model, drawn.astype(np.int32), vocab_size=config.vocab_size, int8=int8),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    generated: dict[str, list[list[int]]] = {}
    for side in sides.values():
        side(8)
    for _ in range(config.repeats):
        for name, side in sides.items():
            started = time.perf_counter()
            generated[name] = side(config.new)
            seconds[name].append(time.perf_counter() - started)
    expected = generated["theirs"]
    if int8:
        expected = _ours(model, drawn.astype(np.int32), vocab_size=config.vocab_size)(config.new)
    width = 1 if int8 else DTYPES[precision].itemsize
    num_bytes = sum(one.numel() * width for one in model.parameters())
    return Row(
        reading=num_bytes / read_rate(num_bytes),
        precision=precision,
        batch=batch,
        theirs=statistics.median(seconds["theirs"]),
        ours=statistics.median(seconds["ours"]),
        same=_same(expected, generated["ours"]),
    )


def _models(config: BenchConfig, dtype: torch.dtype) -> tuple[LanguageModel, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM

    generator = torch.Generator().manual_seed(0)
    model = LanguageModel(size(config.size, vocab_size=config.vocab_size), generator=generator)
    shape = model.config.transformer
    settings: Any = LlamaConfig  # its fields are not in its signature
    reference: Any = LlamaForCausalLM(
        settings(
            vocab_size=config.vocab_size,
            hidden_size=shape.dim,
            intermediate_size=shape.ffn,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            rms_norm_eps=shape.norm_eps,
            rope_theta=shape.rope_theta,
            max_position_embeddings=model.config.context,
            tie_word_embeddings=model.config.tied,
        )
    )
    missing, unexpected = reference.load_state_dict(
        to_llama(model.state_dict(), model.config), strict=False
    )
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    return model.eval(), reference.to(dtype).eval()


def _theirs(reference: Any, prompts: Tensor) -> Callable[[int], list[list[int]]]:
    @torch.inference_mode()
    def run(new: int) -> list[list[int]]:
        made = reference.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            eos_token_id=0,
            pad_token_id=0,
        )
        found: list[list[int]] = made[:, prompts.shape[1] :].tolist()
        return found

    return run


def _ours(
    model: LanguageModel, prompts: np.ndarray, *, vocab_size: int, int8: bool = False
) -> Callable[[int], list[list[int]]]:
    prepared = prepare(model, int8=int8)
    examples = [Example(tokens=prompt, target=np.zeros(len(prompt), bool)) for prompt in prompts]
    allowed = torch.ones(vocab_size, dtype=torch.bool)

    def run(new: int) -> list[list[int]]:
        decoding = Decoding(max_tokens=new, min_tokens=new)
        found = generate(prepared, examples, allowed=allowed, eos=0, decoding=decoding)
        return [one.tokens for one in found]

    return run


def _same(one: list[list[int]], other: list[list[int]]) -> float:
    equal = total = 0
    for left, right in zip(one, other, strict=True):
        pairs = list(zip(left, right, strict=True))
        differing = next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))
        equal, total = equal + differing, total + len(pairs)
    return equal / total


if __name__ == "__main__":
    raise SystemExit(main())
