"""Training from shards to a model directory, on one core in seconds."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.lm.conftest import rows, vocabulary
from unitone import seeding
from unitone.errors import ConfigError
from unitone.lm import export, family
from unitone.lm import train as lm_train
from unitone.lm.data.fields import Fields, Learnt
from unitone.lm.data.vocabulary import SPECIALS, Vocabulary
from unitone.lm.decoder import generation
from unitone.lm.decoder.batch import collate
from unitone.lm.decoder.layout import PromptFormatter
from unitone.lm.decoder.model import NONE, LanguageModel, ModelConfig
from unitone.lm.decoder.objective import NextToken, smoothed
from unitone.lm.decoder.options import DecoderConfig, Options
from unitone.lm.decoder.template import TASKS, DecoderTask
from unitone.lm.decoder.training import table_of
from unitone.lm.options import MixtureConfig
from unitone.nn.transformer import TransformerConfig
from unitone.tokenizers.text.text import ByteText

MakeShards = Callable[..., Path]
SMALL = [
    *("--config", "lm-tiny", "--max-tokens", "512", "--window-examples", "64"),
    *("--valid-utterances", "2", "--threads", "1", "--device", "cpu", "--log-every", "1"),
]


def test_cross_entropy_against_torch() -> None:
    generator = seeding.torch_generator(0)
    logits = torch.randn(5, 9, generator=generator)
    targets = torch.randint(9, (5,), generator=generator)
    for smoothing in (0.0, 0.1):
        losses, entropies = smoothed(logits, targets, smoothing)
        expected = torch.nn.functional.cross_entropy(
            logits, targets, label_smoothing=smoothing, reduction="none"
        )
        torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(
        entropies, torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    )


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_one_batch_of_each_task_is_learnt_by_heart(
    task: DecoderTask, formatter: PromptFormatter
) -> None:
    """To (almost) no loss; where the prompt says everything, decoding gives the targets back."""
    records = []
    for row in rows(6):
        record = formatter.fields.record(row)
        to = row["translation"][0]["language"]
        records.append(record | {"to": to, "translation": record["translations"][to]})
    batch = collate([[(0, formatter.example(task, record))] for record in records])
    shape = TransformerConfig(dim=48, layers=2, heads=4, kv_heads=4, ffn=96)
    model = LanguageModel(
        ModelConfig(transformer=shape, vocab_size=len(formatter.vocabulary)),
        generator=seeding.torch_generator(0),
    )
    objective = NextToken(model, vocabulary=formatter.vocabulary, tasks=[task.name])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    mean = math.inf
    for _ in range(150):
        loss = objective(batch)
        mean = float(loss.total.detach() / loss.count)
        if mean < 0.01:
            break
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    if task.name == "continue":  # the prompt says nothing: what is left is the choice of a row
        distinct = len({tuple(row["units"]) for row in rows(6)})
        assert mean < math.log(distinct) / 7 + 0.1
        return
    assert mean < 0.01
    found = generation.generate(
        model.eval(),
        [formatter.prompt(task, record) for record in records],
        allowed=formatter.allowed(task),
        eos=formatter.vocabulary.eos_id,
        decoding=task.decoding,
    )
    for record, hypothesis in zip(records, found, strict=True):
        example = formatter.example(task, record)
        assert [*hypothesis.tokens, formatter.vocabulary.eos_id] == list(
            example.tokens[example.target]
        )
        assert not hypothesis.truncated


def test_streams_of_codes_are_learnt_within_their_levels() -> None:
    task = DecoderTask(
        name="tts",
        template="<bos> {text} <sep> [ {codes} <eos> ]",
        emits=("code/0", "code/1"),
        metric="units",
    )
    words = vocabulary(codes=(4, 4))
    formatter = PromptFormatter(Fields(vocabulary=words, text=ByteText(), subwords=None))
    record = formatter.fields.record(rows(1)[0] | {"codes": np.array([[0, 1, 2], [3, 2, 1]])})
    batch = collate([[(0, formatter.example(task, record))]])
    shape = TransformerConfig(dim=16, layers=1, heads=2, kv_heads=2, ffn=16)
    model = LanguageModel(
        ModelConfig(transformer=shape, vocab_size=len(words)), generator=seeding.torch_generator(0)
    )
    loss = NextToken(model, vocabulary=words, tasks=["tts"])(batch)
    assert int(loss.count) == int((batch.targets != NONE).sum()) == 7  # 2 x 3 codes, <eos>
    level = math.log(4)
    whole = math.log(len(words))
    assert float(loss.total.detach()) == pytest.approx(3 * level + 4 * whole, rel=0.05)


def test_from_shards_to_a_model_that_loads(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = make_shards(rows(40)), tmp_path / "run"
    arguments = ["--tokens", str(data), "--out", str(out), *SMALL]
    assert lm_train.main([*arguments, "--steps", "3", "--validate-every", "3"]) == 0
    following = f"next: unitone decode --model {out} --task asr --tokens {data} --split dev --out"
    assert following in capsys.readouterr().err
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    (validation,) = [line["validation"] for line in lines if "validation" in line]
    assert {"loss", "asr/wer", "mt/bleu", "lid/accuracy"} <= validation.keys()
    assert all(f"{task.name}/loss" in validation for task in TASKS)
    loaded = family.load(out / "best", device="cpu")
    assert [task.name for task in loaded.tasks] == [task.name for task in TASKS]
    assert loaded.tokenizer is not None
    seen = [row for row in rows(40) if row["split"] == "train"]
    texts = [row["text"] + row["translation"][0]["text"] for row in seen]
    said = "".join(texts)
    assert loaded.learnt == Learnt.of({*said.encode()}, ("ann", "bob"), said)
    assert (
        "lm.train" in (out / "last" / "README.md").read_text()
        or (out / "last" / "README.md").is_file()
    )
    assert lm_train.main([*arguments, "--steps", "5", "--validate-every", "3"]) == 0  # goes on
    assert lm_train.main([*arguments, "--steps", "5", "--lr", "0.5"]) == 2


@pytest.mark.parametrize(
    ("options", "status", "complaint"),
    [
        (["--config", "lm-huge"], 2, "no model size 'lm-huge'"),
        (["--tasks", "asr", "vc"], 2, "no task 'vc'"),
        (["--split", "nobody"], 1, "no utterance of split nobody"),
        (["--split", "train", "trian"], 2, "--split: no utterance has trian"),
        (["--betas", "1", "1"], 2, "--betas must be in [0, 1)"),
        (["--label-smoothing", "1"], 2, "--label-smoothing must be in [0, 1)"),
        (["--label-smoothing", "-0.1"], 2, "--label-smoothing must be in [0, 1)"),
        (["--dropout", "1"], 2, "--dropout must be in [0, 1)"),
        (["--mixing", "temperature", "--temperature", "-2"], 2, "--temperature must be from 0"),
        (["--context", "4"], 2, "every example is longer than"),
        (["--init", "nowhere"], 2, "nowhere: no such directory"),
        (["--features", "vectors"], 2, "--features: no task reads {features}"),
    ],
)
def test_bad_input(
    options: list[str],
    status: int,
    complaint: str,
    make_shards: MakeShards,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, out = make_shards(rows(8)), tmp_path / "run"
    arguments = ["--tokens", str(data), "--out", str(out), "--threads", "1", "--device", "cpu"]
    try:
        found: object = lm_train.main([*arguments, *options, "--steps", "1"])
    except SystemExit as leaving:  # the parser's way, for a value that an option never takes
        found = leaving.code
    assert found == status
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert complaint in said


def test_a_pretrained_start_takes_the_options_of_training(
    make_shards: MakeShards, tmp_path: Path
) -> None:
    data = make_shards(rows(24))
    config = ModelConfig(
        transformer=TransformerConfig(dim=32, layers=1, heads=2, kv_heads=1, ffn=32),
        vocab_size=300,
        context=128,
    )
    words = Vocabulary.build(text=300 - len(SPECIALS))
    old = LanguageModel(config, generator=seeding.torch_generator(1))
    family.save(tmp_path / "old", model=old, vocabulary=words, table=TASKS[:1])
    exported = ["--model", str(tmp_path / "old"), "--out", str(tmp_path / "hf")]
    assert export.main(exported) == 0
    (tmp_path / "hf" / "vocab.json").write_text(json.dumps({"a": 5, "b": 6}))
    out = tmp_path / "run"
    options = ["--tokens", str(data), "--out", str(out), "--init", str(tmp_path / "hf")]
    options += ["--steps", "2", "--dropout", "0.1", "--threads", "1", "--device", "cpu"]
    assert lm_train.main([*options, "--context", "4096"]) == 0
    loaded = family.load(out / "last", device="cpu")
    assert loaded.learnt.text is None  # what the text model knows, nobody says
    assert loaded.learnt.characters is None
    assert loaded.learnt.speakers == ("ann", "bob")
    shape = loaded.model.config
    assert shape.transformer.dim == 32
    assert shape.transformer.dropout == 0.1
    assert shape.context == 128  # the pretrained model's, which is shorter than what was asked for


def test_weights_by_hand_go_with_validation(make_shards: MakeShards, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--tokens", str(make_shards(rows(24))), "--out", str(out), *SMALL, "--steps", "1"]
    assert lm_train.main([*options, "--weights", "asr", "6", "tts", "7"]) == 0
    assert (out / "best").is_dir()


def test_without_a_dev_split_there_is_no_validation(
    make_shards: MakeShards, tmp_path: Path
) -> None:
    data = make_shards([row | {"split": "train"} for row in rows(24)])
    out = tmp_path / "run"
    assert lm_train.main(["--tokens", str(data), "--out", str(out), *SMALL, "--steps", "2"]) == 0
    assert (out / "last").is_dir()


def test_a_metric_that_there_is_not(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--tokens", str(make_shards(rows(24))), "--out", str(tmp_path / "run"), *SMALL]
    assert lm_train.main([*options, "--steps", "2", "--best", "asr/cer"]) == 2
    assert "--best asr/cer: there are loss" in capsys.readouterr().err


def test_data_that_changed_since_the_run_began(make_shards: MakeShards, tmp_path: Path) -> None:
    data = make_shards(rows(24))
    options = [
        "--tokens",
        str(data),
        "--out",
        str(tmp_path / "run"),
        *SMALL,
        "--valid-split",
        "none",
    ]
    assert lm_train.main([*options, "--steps", "1"]) == 0
    index = json.loads((data / "tokens.json").read_text())
    (data / "tokens.json").write_text(json.dumps(index | {"manifest_sha256": "another"}))
    store = (tmp_path / "run" / "store" / "train" / "store.json").read_bytes()
    assert lm_train.main([*options, "--steps", "2"]) == 2
    assert (tmp_path / "run" / "store" / "train" / "store.json").read_bytes() == store


def test_nothing_is_written_into_a_folder_in_which_another_process_trains(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    holder = "import sys; from pathlib import Path; from unitone import files\n"
    holder += "with files.locked(Path(sys.argv[1])): print('held', flush=True), sys.stdin.read()"
    command = [sys.executable, "-c", holder, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        arguments = ["--tokens", str(make_shards(rows(24))), "--out", str(out), *SMALL]
        assert lm_train.main([*arguments, "--steps", "1"]) == 2
        assert "is being written by another process" in capsys.readouterr().err
        assert list(out.iterdir()) == []
        other.communicate(b"")


def test_other_settings_are_refused_before_anything_is_written(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = ["--tokens", str(make_shards(rows(24))), "--out", str(out), *SMALL, "--steps", "1"]
    assert lm_train.main(options) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert lm_train.main([*options, "--split", "train", "dev"]) == 2
    assert "was begun with split" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_run_without_its_checkpoints_is_refused_before_anything_is_written(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = ["--out", str(out), *SMALL, "--steps", "1"]
    assert lm_train.main(["--tokens", str(make_shards(rows(24))), *options]) == 0
    shutil.rmtree(out / "checkpoints")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    other = make_shards(rows(30), folder="other")
    assert lm_train.main(["--tokens", str(other), *options]) == 2
    assert "none of its checkpoints" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_empty_shards(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert lm_train.main(["--tokens", str(tmp_path / "none"), "--out", out, "--steps", "1"]) == 1
    assert "tokens.json" in capsys.readouterr().err


def test_all_fields_of_the_table_are_tokens_of_the_vocabulary(make_shards: MakeShards) -> None:
    config = DecoderConfig(tokens=Path("d"), out=Path("o"), options=Options(table="voxtlm"))
    assert {task.name for task in table_of(config)} == {"asr", "tts", "textlm", "continue"}
    assert table_of(dataclasses.replace(config, tasks=("tts",)))[0].name == "tts"


def test_weights_by_hand_replace_those_of_the_table() -> None:
    mixture = MixtureConfig(weights={"tts": 7.5})
    config = DecoderConfig(tokens=Path("d"), out=Path("o"), options=Options(), mixture=mixture)
    weights = {task.name: task.weight for task in table_of(config)}
    assert weights == {task.name: task.weight for task in TASKS} | {"tts": 7.5}
    with pytest.raises(ConfigError, match="no task 'tts'; the table has asr"):
        table_of(dataclasses.replace(config, tasks=("asr",)))
    with pytest.raises(ConfigError, match="--weights asr 0: a weight must be more than 0"):
        MixtureConfig(weights={"asr": 0.0})
    with pytest.raises(ConfigError, match="--weights goes with --mixing weights"):
        MixtureConfig(weights={"asr": 1.0}, mixing="data")


def test_a_folder_of_the_user_is_refused_and_left_as_it_is(
    make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    (out / "last").mkdir(parents=True)
    (out / "last" / "notes.txt").write_text("mine")
    words = ["--tokens", str(make_shards(rows(8))), "--out", str(out), "--config", "lm-tiny"]
    assert lm_train.main([*words, "--steps", "1", "--device", "cpu"]) == 2
    assert "holds other files (last)" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["last"]
