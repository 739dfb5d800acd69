"""Golden cases of ``lm/``: layouts, losses, generated tokens and training of the decoder."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tests.golden import subject
from tests.golden.case import Case, Tensors, generator, named, part, shaken

UNITS, CODES, LEVELS, CONTEXT = 12, 8, 3, 128
UTTERANCES = 6
TEXT = (("one red dog", "ein roter hund"), ("two green cats", "zwei katzen"), ("sleep", "schlaf"))
OPTIMIZERS: tuple[Literal["adamw", "muon"], ...] = ("adamw", "muon")
SEARCHES = {
    "greedy": subject.Decoding(max_tokens=16),
    "beam": subject.Decoding(max_tokens=16, beam=4, length_penalty=0.8),
    "sampled": subject.Decoding(max_tokens=16, temperature=0.9, top_k=20, top_p=0.95),
    "rules": subject.Decoding(max_tokens=16, repetition_penalty=1.3, no_repeat=2, min_tokens=6),
}


def draw_utterances() -> Tensors:
    """Units and codes of six utterances."""
    given = {}
    for number in range(UTTERANCES):
        length = (6 + 2 * number,)
        given[f"units.{number}"] = torch.randint(UNITS, length, generator=generator(number)).int()
        codes = torch.randint(CODES, (LEVELS, 4 + number), generator=generator(90 + number))
        given[f"codes.{number}"] = codes.int()
    return given


def records_of(formatter: subject.PromptFormatter, given: Tensors) -> list[dict[str, Any]]:
    """Return the fields of the utterances as tokens."""
    found = []
    for number in range(UTTERANCES):
        english, german = TEXT[number % len(TEXT)]
        row = {
            "id": f"u{number}",
            "units": given[f"units.{number}"].numpy(),
            "codes": given[f"codes.{number}"].numpy(),
            "text": english,
            "translation": {"de": german},
            "language": "en",
            "speaker": ("ann", "bob")[number % 2],
            "gender": ("f", "m")[number % 2],
        }
        record = formatter.fields.record(row)
        translated = {"to": "de", "translation": record["translations"]["de"]}
        found.append(record | translated)
    return found


def examples_of(
    formatter: subject.PromptFormatter,
    table: Sequence[subject.DecoderTask],
    records: list[dict[str, Any]],
) -> list[tuple[int, Any]]:
    """Return (number of the task, sequence) of every utterance for every task."""
    return [
        (number, formatter.example(task, record))
        for record in records
        for number, task in enumerate(table)
    ]


def batches_of(examples: list[tuple[int, Any]]) -> dict[str, Any]:
    """Return the examples one a row, and two a row."""
    pairs = zip(examples[::2], examples[1::2], strict=True)
    return {
        "unpacked": subject.collate([[one] for one in examples]),
        "packed": subject.collate([list(pair) for pair in pairs]),
    }


TABLES: dict[str, tuple[Sequence[subject.DecoderTask], tuple[int, ...]]] = {
    "units": (subject.TASKS, ()),
    "codes": (subject.CODES, (CODES,) * LEVELS),
}


def formatter_of(name: str) -> subject.PromptFormatter:
    """Return what lays out sequences over units, or over codes with a delay."""
    table, codes = TABLES[name]
    return subject.formatter_of(table, codes=codes, units=UNITS)


def run_layout(given: Tensors, folder: Path) -> Tensors:
    """Every task's sequence of every utterance, one after the other."""
    found = {}
    for name, (table, _) in TABLES.items():
        formatter = formatter_of(name)
        records = records_of(formatter, given)
        for task in table:
            examples = [formatter.example(task, record) for record in records]
            found[f"{name}.{task.name}.tokens"] = _joined(one.tokens for one in examples)
            found[f"{name}.{task.name}.target"] = _joined(one.target for one in examples)
            found[f"{name}.{task.name}.prompt"] = _joined(
                formatter.prompt(task, record).tokens for record in records
            )
    return found


def _joined(arrays: Any) -> Tensor:
    return torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays]))


def model_of(kind: str, vocab_size: int) -> nn.Module:
    """Return a tiny model of our own kind, or of the OPT kind with norms before or after."""
    shape = subject.TransformerConfig(dim=8, layers=2, heads=2, kv_heads=1, ffn=12)
    if kind == "llama":
        config = subject.ModelConfig(transformer=shape, vocab_size=vocab_size, context=CONTEXT)
        return subject.LanguageModel(config, generator=generator(1))
    shape = subject.TransformerConfig(dim=8, layers=2, heads=2, kv_heads=2, ffn=12)
    opt = subject.OptConfig(
        transformer=shape,
        vocab_size=vocab_size,
        context=CONTEXT,
        embed_dim=8 if kind == "opt" else 6,
        pre_norm=kind == "opt",
    )
    return subject.OptModel(opt, generator=generator(1))


def draw_model(kind: str, table: str) -> Tensors:
    """Weights under the names of their files, large enough that tokens depend on each other."""
    model = model_of(kind, len(formatter_of(table).vocabulary))
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    weights = {n: v * 12 if v.ndim == 2 else v for n, v in shaken(weights, 2, scale=0.02).items()}
    return named("weights.", subject.to_file(model, weights)) | draw_utterances()


def load_model(kind: str, table: str, given: Tensors) -> tuple[subject.PromptFormatter, nn.Module]:
    """Return the stored model and its layout."""
    formatter = formatter_of(table)
    model = model_of(kind, len(formatter.vocabulary))
    model.load_state_dict(subject.from_file(model, part(given, "weights.")))
    return formatter, model


def run_losses(kind: str, table: str, given: Tensors, folder: Path) -> Tensors:
    """The loss of a batch, in parts, and what is generated."""
    tasks = TABLES[table][0]
    formatter, model = load_model(kind, table, given)
    model.eval()
    records = records_of(formatter, given)
    batches = batches_of(examples_of(formatter, tasks, records))
    module = subject.next_token(model, formatter, tasks)
    found: Tensors = {}
    with torch.no_grad():
        for name, batch in batches.items():
            loss = module(batch)
            parts = torch.stack([loss.parts[task.name][0] for task in tasks])
            found[f"{name}.loss"], found[f"{name}.count"] = loss.total, loss.count
            found[f"{name}.parts"] = parts
    for task in tasks:
        if task.name not in ("asr", "tts"):
            continue
        for name, search in SEARCHES.items():
            if name == "beam" and table == "codes" and task.name == "tts":
                continue  # refused: no beam search over codes with a delay
            hypotheses = subject.generated(model, formatter, task, records, search)
            tokens = [torch.tensor([*one.tokens, -1]) for one in hypotheses]
            found[f"{task.name}.{name}.tokens"] = torch.cat(tokens)
            scores = [one.score for one in hypotheses]
            found[f"{task.name}.{name}.scores"] = torch.tensor(scores, dtype=torch.float64)
    return found


def run_training(given: Tensors, folder: Path) -> Tensors:
    """Losses of five steps on packed and unpacked batches in turn, by either optimizer."""
    found = run_losses("llama", "units", given, folder)
    for optimizer in OPTIMIZERS:
        formatter, model = load_model("llama", "units", given)
        examples = examples_of(formatter, subject.TASKS, records_of(formatter, given))
        batches = [*batches_of(examples[:14]).values(), *batches_of(examples[14:28]).values()]
        module = subject.next_token(model, formatter, subject.TASKS)
        found[f"training.{optimizer}"] = subject.losses_of_five_steps(
            module, batches, folder / optimizer, optimizer=optimizer
        )
    return found


def model_case(kind: str, table: str) -> Case:
    return Case(draw=partial(draw_model, kind, table), run=partial(run_losses, kind, table))


CASES = {
    "lm-layout": Case(draw=draw_utterances, run=run_layout),
    "lm-units": Case(draw=partial(draw_model, "llama", "units"), run=run_training),
    "lm-codes": model_case("llama", "codes"),
    "lm-opt": model_case("opt", "units"),
    "lm-opt-projected": model_case("opt-projected", "units"),
}
