"""How fast training is beside Transformers: same shapes, tokens, threads and precision, one run.

``python -m unitone.eval.bench.train``: a step of our trainer's network and optimizer against a
plain loop over ``LlamaForCausalLM`` with PyTorch's AdamW as it comes. Random tokens, every position
learnt, no padding, so both do the same arithmetic. The engines of a side take turns, theirs first,
because ours changes how the process keeps memory; medians of their steps are compared. Needs
``pip install 'unitone[hf]'``.

Columns: thousands of tokens per second; the ratio to the faster of Transformers' ways to train (in
bf16: autocast over float32 weights, and weights that are bf16); the matrix arithmetic, 6 x weights
x tokens (arXiv 2001.08361, section 2.1), in TFLOP/s; and its share of what lone products of the
model's shapes reach.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from unitone import devices, seeding
from unitone.config import command_line
from unitone.eval.bench.limits import Product, product_rate
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.batch import plain
from unitone.lm.decoder.model import LanguageModel, ModelConfig, size
from unitone.lm.decoder.objective import NextToken
from unitone.train import memory, optim


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    size: str = "lm-small"
    """Named size of the model."""
    vocab: int = 4096
    """Tokens in the vocabulary."""
    rows: int = 16
    """Sequences of a batch."""
    length: int = 256
    """Positions of a sequence."""
    steps: int = 7
    """Timed steps of each engine; the median counts."""
    threads: int = int(os.environ.get("OMP_NUM_THREADS", "0")) or (os.cpu_count() or 1)
    """CPU threads of every engine."""
    precision: Literal["fp32", "bf16"] = devices.fast_precision(torch.device("cpu"))
    """Of the products, on both sides; default: what is fast here."""
    compile: bool = True
    """Time ours compiled as well."""
    device: str = "cpu"
    """cpu or cuda."""


Step = Callable[[], float]
"""Does a training step; returns the loss."""


def measure(config: BenchConfig) -> dict[str, float]:
    """Return tokens per second by engine."""
    theirs = {"Transformers, fp32 weights": _transformers(config, weights=torch.float32)}
    if config.precision == "bf16":
        theirs["Transformers, bf16 weights"] = _transformers(config, weights=torch.bfloat16)
    rates = _rates(config, theirs)  # before ours tells the C library how to keep memory
    memory.keep_freed()
    ours = {"ours": _ours(config, compiled=False)}
    if config.compile:
        ours["ours, compiled"] = _ours(config, compiled=True)
    return rates | _rates(config, ours)


def _rates(config: BenchConfig, engines: dict[str, Step]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(config.steps + 2):
        for name, step in engines.items():
            started = time.perf_counter()
            step()
            if turn >= 2:  # the first two warm up and compile
                times[name].append(time.perf_counter() - started)
    tokens = config.rows * config.length
    return {name: tokens / statistics.median(taken) for name, taken in times.items()}


def _tokens(config: BenchConfig) -> Any:
    drawn = seeding.stream(0, "bench").integers(config.vocab, size=(config.rows, config.length + 1))
    return torch.from_numpy(drawn).to(config.device)


def _ours(config: BenchConfig, *, compiled: bool) -> Step:
    model = LanguageModel(
        size(config.size, vocab_size=config.vocab), generator=seeding.torch_generator(0)
    ).to(config.device)
    words = Vocabulary.build(text=config.vocab, passport=None)
    network = NextToken(model, vocabulary=words, tasks=["text"])
    if compiled:
        for block in network.blocks:
            block.compile(dynamic=True)
    optimizers = optim.build(network, name="adamw", lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    batch = plain(_tokens(config))

    def step() -> float:
        with torch.autocast(
            config.device, dtype=torch.bfloat16, enabled=config.precision == "bf16"
        ):
            loss = network(batch)
        loss.total.backward()
        optim.scale_and_clip(list(network.parameters()), scale=1 / loss.count.float(), max_norm=1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return float(loss.total.detach() / loss.count)

    return step


def _transformers(config: BenchConfig, *, weights: Any) -> Step:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = size(config.size, vocab_size=config.vocab)
    inside = shape.transformer
    torch_config = LlamaConfig(
        vocab_size=shape.rows,
        hidden_size=inside.dim,
        intermediate_size=inside.ffn,
        num_hidden_layers=inside.layers,
        num_attention_heads=inside.heads,
        num_key_value_heads=inside.kv_heads,
        tie_word_embeddings=shape.tied,
    )
    made: Any = LlamaForCausalLM(torch_config)
    model = made.to(weights).to(config.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    tokens = _tokens(config)[:, :-1]

    low = config.precision == "bf16" and weights == torch.float32

    def step() -> float:
        with torch.autocast(config.device, dtype=torch.bfloat16, enabled=low):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def products(shape: ModelConfig, rows: int) -> list[Product]:
    """Return the products of a forward pass over ``rows`` positions, attention left out."""
    inside = shape.transformer
    mixed, layers = inside.heads * inside.head_dim, inside.layers
    queries = mixed + 2 * inside.kv_heads * inside.head_dim
    return [
        Product(rows=rows, inputs=inside.dim, outputs=queries, count=layers),
        Product(rows=rows, inputs=mixed, outputs=inside.dim, count=layers),
        Product(rows=rows, inputs=inside.dim, outputs=2 * inside.ffn, count=layers),
        Product(rows=rows, inputs=inside.ffn, outputs=inside.dim, count=layers),
        Product(rows=rows, inputs=inside.dim, outputs=shape.rows),
    ]


def main(argv: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    config = command_line(BenchConfig, argv, __doc__)
    torch.set_num_threads(config.threads)
    shape = size(config.size, vocab_size=config.vocab)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    limit = product_rate(products(shape, config.rows * config.length), dtype)
    rates = measure(config)
    with torch.device("meta"):
        weights = LanguageModel(shape).num_parameters
    best = max(rate for name, rate in rates.items() if name.startswith("Transformers"))
    print(f"{config.size}, {weights / 1e6:.0f} M weights, {config.rows} x {config.length} tokens,")
    print(f"{config.precision}, {config.threads} threads, torch {torch.__version__}")
    print(f"lone products of these shapes: {limit / 1e12:.3f} TFLOP/s")
    print(f"{'':28}{'ktok/s':>8}{'ratio':>8}{'TFLOP/s':>9}{'of it':>8}")
    for name, rate in rates.items():
        flops = 6 * weights * rate
        print(
            f"{name:28}{rate / 1e3:8.2f}{rate / best:8.2f}{flops / 1e12:9.3f}{flops / limit:8.0%}"
        )
    ours = max(rate for name, rate in rates.items() if name.startswith("ours"))
    print(f"ours against the faster of theirs: {ours / best:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
