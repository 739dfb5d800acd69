"""Fourteen faults that trainers have had, planted one by one: the certificate finds each of them.

A fault is planted in the code that trains; what is asked is the check that is about it, which holds
where nothing is planted.
"""

import contextlib
import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unitone.lm import family
from unitone.lm.certify.certificate import checked
from unitone.lm.certify.setup import LmSetUp, set_up
from unitone.lm.data.mixture import Mixture
from unitone.lm.decoder import batch as decoder_batch
from unitone.lm.decoder import options as decoder_options
from unitone.lm.decoder import weights as decoder_weights
from unitone.lm.decoder.batch import Batch
from unitone.lm.decoder.model import NONE
from unitone.lm.decoder.objective import NextToken
from unitone.lm.decoder.options import BatchConfig, Options
from unitone.lm.interop.opt import OptConfig, OptModel
from unitone.lm.options import TRAINING, LmConfig, MixtureConfig
from unitone.nn import transformer
from unitone.nn.transformer import TransformerConfig
from unitone.train import distributed
from unitone.train.certify import processes
from unitone.train.certify.setup import SetUp
from unitone.train.config import OptimConfig
from unitone.train.loading import Position
from unitone.train.optim import Ema
from unitone.train.trainer import Loss

multiprocessing.set_forkserver_preload(["unitone.lm.certify.setup", "unitone.lm.decoder.training"])
NANO = (32, 2, 2, 2, 64, True)
Make = Callable[..., LmSetUp]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return the set-up of a very small model; keywords are options of the family."""
    monkeypatch.setitem(decoder_options.SIZES, "lm-nano", NANO)

    def made(
        *, size: str = "lm-nano", precision: Any = "fp32", folder: str = "certified", **options: Any
    ) -> LmSetUp:
        config = LmConfig(
            tokens=Path("none"),
            out=Path("none"),
            config=size,
            options=Options(**options),
            mixture=MixtureConfig(max_tokens=256),
            train=dataclasses.replace(TRAINING, precision=precision, device="cpu", threads=1),
        )
        (tmp_path / folder).mkdir()
        return set_up(config, tmp_path / folder, given=False)

    return made


@contextlib.contextmanager
def found_by(check: str, make: Make, **options: Any) -> Iterator[None]:
    """Hold what the body plants against ``check``, which has to hold without it."""
    clean = checked(check, make(**options))
    assert clean.passed is True, clean
    yield
    finding = checked(check, make(**options, folder="faulty"))
    assert finding.passed is False, finding
    assert finding.what == clean.what, "it ended with an error"
    assert finding.figure != clean.figure


def test_01_gradients_that_fsdp_does_not_reduce(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As espnet#6503: each process goes its own way."""
    monkeypatch.setattr(processes, "work", work_unreduced)
    finding = checked("fsdp", make(size="lm-tiny"))
    assert finding.passed is False
    assert finding.what == "two processes are one, with FSDP", "it ended with an error"


def work_unreduced(setup: SetUp, way: processes.Way, rank: int, port: int) -> None:
    """Train in a process of its own, in which nothing wraps the network."""
    distributed.wrap = lambda network, **_: network
    WORK(setup, way, rank, port)


WORK = processes.work


def test_02_fp32_under_a_bf16_flag(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As OmniVoice#212."""
    with found_by("precision", make, precision="bf16"):
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


def test_03_a_resumed_job_that_restarts_its_data(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As prime-rl#3332."""
    with found_by("resume", make):
        monkeypatch.setattr(Position, "of", classmethod(lambda cls, saved: cls()))


def test_04_the_average_restored_over_a_trained_head(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = Ema._swap

    @contextlib.contextmanager
    def swapped(self: Ema) -> Iterator[None]:
        swap(self)
        yield
        swap(self)
        head = "model.embedding.weight"
        with torch.no_grad():
            self._live[head].copy_(self.averages[head])

    with found_by("ema", make):
        monkeypatch.setattr(Ema, "swapped", swapped)


def test_05_a_loss_averaged_over_unequal_micro_batches(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = NextToken.forward

    def averaged(self: NextToken, batch: Batch) -> Loss:
        loss = forward(self, batch)
        one = torch.ones_like(loss.count)
        return Loss(total=loss.total / loss.count, count=one, parts=loss.parts)

    with found_by("accumulation", make):
        monkeypatch.setattr(NextToken, "forward", averaged)


def test_06_label_smoothing_over_masked_ids(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = NextToken.forward

    def smoothed(self: NextToken, batch: Batch) -> Loss:
        loss = forward(self, batch)
        states = self.model(batch.tokens, positions=batch.positions, segments=batch.segments)
        masked = self.model.head(states[batch.targets == NONE]).log_softmax(-1)
        extra = -self.label_smoothing * masked.mean(-1).sum()
        return dataclasses.replace(loss, total=loss.total + extra)

    with found_by("targets", make, label_smoothing=0.1):
        monkeypatch.setattr(NextToken, "forward", smoothed)


def test_07_weight_decay_on_norms(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    adamw = torch.optim.AdamW

    def decaying(groups: list[dict[str, Any]], **settings: Any) -> torch.optim.Optimizer:
        most = max(group["weight_decay"] for group in groups)
        return adamw([{**group, "weight_decay": most} for group in groups], **settings)

    with found_by("decay", make):
        monkeypatch.setattr(torch.optim, "AdamW", decaying)


def test_08_a_scheduler_that_is_stepped_twice(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lr_at = OptimConfig.lr_at

    def twice(self: OptimConfig, *, step: int, progress: float, time: float = 0.0) -> float:
        return lr_at(self, step=2 * step, progress=2 * progress, time=time)

    with found_by("schedule", make):
        monkeypatch.setattr(OptimConfig, "lr_at", twice)


def unreset(rows: Any) -> Batch:
    made = COLLATE(rows)
    counted = torch.arange(made.tokens.shape[1]).expand(len(made.tokens), -1)
    return dataclasses.replace(made, positions=counted)


COLLATE = decoder_batch.collate


def test_09_positions_that_packing_does_not_reset(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a model that learns its positions; rotary ones are relative, and the loss is the same."""
    opt = absolute_model(make(folder="words"), tmp_path / "opt")
    packing = BatchConfig(packing=True)
    with found_by("packing", make, init=opt, batch=packing):
        monkeypatch.setattr(decoder_batch, "collate", unreset)
    assert checked("packing", make(batch=packing, folder="rotary")).passed


def absolute_model(setup: LmSetUp, folder: Path) -> Path:
    """Write a model with learned positions and the vocabulary of ``setup``."""
    made = setup.made
    shape = TransformerConfig(dim=32, layers=2, heads=2, kv_heads=2, ffn=64)
    config = OptConfig(
        transformer=shape, vocab_size=len(made.words.vocabulary), context=256, embed_dim=32
    )
    model = OptModel(config, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            parameter.add_(0.1 * noise)
    family.save(
        folder,
        model=model,
        vocabulary=made.words.vocabulary,
        table=made.table,
        tokenizer=made.words.tokenizer,
    )
    return folder


def test_10_a_causal_leak(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one position, which an untrained loss doesn't show."""
    attend = transformer.attend

    def leaking(query: Tensor, key: Tensor, value: Tensor, *, mask: Any, causal: bool) -> Tensor:
        if causal:
            length = query.shape[2]
            seen = torch.ones(length, length, dtype=torch.bool).tril(1)
            mask, causal = seen[None, None].expand(len(query), 1, -1, -1), False
        return attend(query, key, value, mask=mask, causal=causal)

    with found_by("causality", make):
        monkeypatch.setattr(transformer, "attend", leaking)


def test_11_dropout_in_validation(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def always(self: nn.Dropout, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.p, training=True)

    with found_by("validation", make, dropout=0.1):
        monkeypatch.setattr(nn.Dropout, "forward", always)


def test_12_tied_weights_saved_untied(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    to_json, to_tensors = decoder_weights.to_json, decoder_weights.to_tensors

    def untied(model: Any, table: Any) -> dict[str, Any]:
        values = to_json(model, table)
        values["llama"]["tied"] = False
        return values

    def twice(model: Any) -> dict[str, Tensor]:
        tensors = to_tensors(model)
        return {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}

    with found_by("saving", make):
        monkeypatch.setattr(decoder_weights, "to_json", untied)
        monkeypatch.setattr(decoder_weights, "to_tensors", twice)


class Repeating(Mixture):
    """Hides tokens at random, by the state of the process."""

    state: np.random.Generator | None = None

    def load(self, spec: Any) -> Any:
        if Repeating.state is None:
            Repeating.state = np.random.default_rng(0)
        made = super().load(spec)
        hidden = torch.from_numpy(Repeating.state.random(tuple(made.tokens.shape)) < 0.1)
        return dataclasses.replace(made, tokens=made.tokens.masked_fill(hidden, 0))


class WithRepeating(LmSetUp):
    def source(self, seed: int) -> Mixture:
        return Repeating(
            self.lm.mixture,
            store=self.made.train,
            tasks=self.tasks,
            batching=self.made.batching,
            seed=seed,
        )


def test_14_a_seed_that_every_worker_repeats(make: Make) -> None:
    finding = checked("order", WithRepeating(**make().__getstate__()))
    assert finding.passed is False
    assert "by 2 workers" in finding.figure.partition("wrong: ")[2]
