"""Going on from a model of ours, with other tasks, on other data."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.lm.conftest import rows
from unitone.lm import family
from unitone.lm import train as lm_train
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.model import LanguageModel, size
from unitone.lm.decoder.template import TASKS
from unitone.lm.interop import finetune

MakeShards = Callable[..., Path]
SMALL = [
    *("--config", "lm-tiny", "--max-tokens", "512", "--window-examples", "64", "--threads", "1"),
    *("--valid-utterances", "0", "--device", "cpu"),
]

names = st.lists(st.sampled_from(["de", "en", "fr", "it"]), unique=True)


@given(names, names, st.integers(0, 9), st.integers(0, 9))
def test_a_token_keeps_its_meaning(old: list[str], new: list[str], text: int, units: int) -> None:
    before = Vocabulary.build(text=text, units=units, languages=old, tasks=["asr", "mt"])
    after = Vocabulary.build(text=text, units=units, languages=new, tasks=["tts", "asr"])
    found = finetune.rows(before, after)
    assert all(after.describe(mine) == before.describe(row) for mine, row in found.items())
    spelled = {before.describe(row) for row in range(len(before))}
    assert found.keys() == {n for n in range(len(after)) if after.describe(n) in spelled}


def test_a_run_goes_on_from_another_with_other_tasks(
    make_shards: MakeShards, tmp_path: Path
) -> None:
    data = make_shards(rows(24))
    options = ["--tokens", str(data), *SMALL]
    first = ["--out", str(tmp_path / "first"), "--steps", "2", "--tasks", "asr", "lid"]
    assert lm_train.main([*options, *first]) == 0
    start = tmp_path / "first" / "last"
    second = ["--init", str(start), "--out", str(tmp_path / "second"), "--tasks", "mt", "asr"]
    assert lm_train.main([*options, *second, "--steps", "1", "--lr", "1e-12"]) == 0
    old = family.load(start, device="cpu")
    new = family.load(tmp_path / "second" / "last", device="cpu")
    found = finetune.rows(old.vocabulary, new.vocabulary)
    assert new.vocabulary.id("<task:mt>") not in found
    assert {new.vocabulary.block_of(token) for token in found} >= {"task", "text", "unit"}
    mine, theirs = list(found), list(found.values())
    torch.testing.assert_close(new.model.embedding.weight[mine], old.model.embedding.weight[theirs])


def test_another_tokenizer_is_refused(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_shards(rows(8))
    old = Vocabulary.build(text=300, units=5, passport="another")
    shape = size("lm-tiny", vocab_size=len(old))
    model = LanguageModel(shape, generator=torch.Generator().manual_seed(0))
    family.save(tmp_path / "old", model=model, vocabulary=old, table=TASKS[:1])
    options = ["--tokens", str(data), "--out", str(tmp_path / "run"), *SMALL, "--steps", "1"]
    assert lm_train.main([*options, "--init", str(tmp_path / "old")]) == 2
    assert "of another tokenizer than the shards'" in capsys.readouterr().err
