"""What T2V2's losses see, and what they leave out."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.lm.conftest import UNITS
from tests.lm.conftest import vocabulary as vocabulary_of
from unitone.lm.t2v2.batch import Batch, T2V2Batching, masks
from unitone.lm.t2v2.model import T2V2, size
from unitone.lm.t2v2.objective import Joint
from unitone.lm.t2v2.options import Pieces
from unitone.lm.t2v2.table import TASKS
from unitone.train.network import Loss

VOCABULARY = vocabulary_of()
BATCHING = T2V2Batching(vocabulary=VOCABULARY, tasks=TASKS, upsample=1, spread=4, longest=200)
ASR = [row.name for row in TASKS].index("asr")
ST = [row.name for row in TASKS].index("st")


def record(text: str, units: list[int], **more: Any) -> dict[str, Any]:
    ids = VOCABULARY.block("text").encode(np.frombuffer(text.encode(), np.uint8).astype(np.int32))
    tokens = VOCABULARY.block("unit").encode(np.array(units, np.int32))
    return {"id": text, "text": ids, "units": tokens, "language": "en", "speaker": "ann", **more}


def batch(*records: dict[str, Any], task: int = ASR) -> Batch:
    generator = np.random.default_rng(5)
    return BATCHING.collate([[(task, BATCHING.example(task, one, generator))] for one in records])


def joint(**pieces: Any) -> Joint:
    model = T2V2(
        size(
            "t2v2-tiny",
            vocab_size=len(VOCABULARY),
            text=256,
            units=UNITS,
            languages=2,
            speakers=2,
            genders=2,
        ),
        generator=torch.Generator().manual_seed(1),
    )
    return Joint(model, pieces=Pieces(**pieces))


def seen(objective: Joint, given: Batch) -> dict[str, list[Tensor]]:
    """Return what each head says in a step, call by call."""
    found: dict[str, list[Tensor]] = {"ctc": [], "correction": [], "speech": []}
    hooks = [
        getattr(objective.model, name).register_forward_hook(
            lambda _, __, out, name=name: found[name].append(out.detach())
        )
        for name in found
    ]
    with torch.no_grad():
        objective(given)
    for hook in hooks:
        hook.remove()
    return found


def test_masked_units_are_predicted_without_being_seen() -> None:
    objective, given = joint(), batch(record("red", [*range(10)]))
    rows = given.rows["pair"]
    assert 0 < int(rows.masked.sum()) < 10
    before = seen(objective, given)["speech"][0]
    rows.units[rows.masked] = (rows.units[rows.masked] + 1) % UNITS
    after = seen(objective, given)["speech"][0]
    assert torch.equal(before, after)
    rows.units[~rows.masked] = (rows.units[~rows.masked] + 1) % UNITS
    assert not torch.equal(before, seen(objective, given)["speech"][0])


@pytest.mark.parametrize("task", [ASR, ST])
def test_neither_recognition_nor_correction_sees_the_text(task: int) -> None:
    some = {"to": "de", "translation": record("rot", [0])["text"]}
    objective, given = joint(), batch(record("red", [*range(10)], **some), task=task)
    rows = given.rows["pair" if task == ASR else "st"]
    before = seen(objective, given)
    (rows.text if task == ASR else rows.target)[:] = ord("q")
    after = seen(objective, given)
    for name in ("ctc", "correction"):
        assert len(before[name]) == 1
        assert torch.equal(before[name][0], after[name][0])


def test_what_does_not_fit_is_counted_and_never_nan() -> None:
    fits = record("red", [*range(10)])
    short, repeats = record("yellow", [1, 2, 3]), record("aaa", [1, 2, 3, 4])
    objective = joint()
    loss: Loss = objective(batch(fits, short, repeats))
    alone: Loss = objective(batch(fits))
    assert [float(one) for one in loss.parts["left_out"]] == [2.0, 3.0]
    assert loss.total.item() == pytest.approx(alone.total.item(), rel=1e-5)
    none: Loss = objective(batch(short, repeats))
    none.total.backward()
    assert none.total.item() == 0.0
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in objective.parameters())


def test_every_weight_outside_the_blocks_has_a_gradient_in_every_batch() -> None:
    objective = joint()
    objective(batch(record("red", [*range(10)]))).total.backward()
    assert [name for name, p in objective.named_parameters() if p.grad is None] == []


def test_a_mask_is_never_empty() -> None:
    generator = np.random.default_rng(0)
    assert all(masks(3, 0.0, generator).sum() == 1 for _ in range(20))
    assert masks(0, 0.5, generator).shape == (0,)


def test_switched_off_pieces_leave_no_part() -> None:
    given = batch(record("red", [*range(10)]))
    names = {
        piece: {*joint(**{piece: False})(given).parts}
        for piece in ("speech", "synthesis", "correction")
    }
    everything = {"left_out", "asr", "speech", "tts", "length", "correction"}
    assert everything - names["speech"] == {"speech"}
    assert everything - names["synthesis"] == {"tts", "length"}
    assert everything - names["correction"] == {"correction"}


@pytest.mark.parametrize("align", ["mas", "ctc", "uniform"])
def test_every_alignment_trains(align: str) -> None:
    objective = joint(align=align)
    given = batch(record("red", [*range(10)]), record("yellow dog", [*range(12), *range(8)]))
    first = objective(given).total.item()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=2e-3)
    for _ in range(5):
        optimizer.zero_grad()
        objective(given).total.backward()
        optimizer.step()
    assert objective(given).total.item() < first
