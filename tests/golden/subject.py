"""What of the package the golden numbers are of: every name that the cases use, in one place.

A change that moves or renames something touches this file and no golden number.
"""

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unitone.codecs.nn.crops import CropBatch
from unitone.codecs.nn.losses import MelRegression
from unitone.codecs.nn.network import NetworkConfig as UnitNetworkConfig
from unitone.codecs.nn.network import UnitNetwork
from unitone.codecs.options import BackboneConfig, LossConfig
from unitone.eval.judge.model import Network as JudgeNetwork
from unitone.eval.judge.model import NetworkConfig as JudgeConfig
from unitone.eval.judge.model import log_mel, normalized, outputs_of, padded
from unitone.lm.data.fields import Fields
from unitone.lm.data.vocabulary import SPECIALS, Vocabulary
from unitone.lm.decoder.batch import collate
from unitone.lm.decoder.generation import Hypothesis, generate
from unitone.lm.decoder.layout import PromptFormatter
from unitone.lm.decoder.model import LanguageModel, ModelConfig
from unitone.lm.decoder.objective import NextToken
from unitone.lm.decoder.template import CODES, TASKS, DecoderTask, Decoding
from unitone.lm.interop.llama import from_llama, to_llama
from unitone.lm.interop.opt import OptConfig, OptModel
from unitone.lm.interop.opt_weights import from_opt, to_opt
from unitone.nn.transformer import TransformerConfig
from unitone.tokenizers.encoder import load_encoder
from unitone.tokenizers.kmeans.kmeans import KMeansConfig
from unitone.tokenizers.kmeans.kmeans import train as train_kmeans
from unitone.tokenizers.kmeans.segments import units_of
from unitone.tokenizers.text.subwords import UnitSubwords
from unitone.tokenizers.text.text import ByteText, CharacterText, SentencePieceText
from unitone.train.config import TrainConfig
from unitone.train.trainer import Trainer

__all__ = [
    "CODES",
    "TASKS",
    "BackboneConfig",
    "CropBatch",
    "DecoderTask",
    "Decoding",
    "JudgeConfig",
    "JudgeNetwork",
    "LanguageModel",
    "ModelConfig",
    "OptConfig",
    "OptModel",
    "PromptFormatter",
    "TransformerConfig",
    "UnitNetwork",
    "UnitNetworkConfig",
    "collate",
    "outputs_of",
]  # fmt: skip

CPU = torch.device("cpu")


def features_of(ssl: str | Path, waveforms: Tensor, lengths: Tensor, layers: int) -> list[Tensor]:
    """Return the features of layers 0 to ``layers`` by the encoder ``ssl``."""
    encoder = load_encoder(ssl, layer=None, precision="fp32", device=CPU)
    return [encoder.features(waveforms, lengths, layer=layer) for layer in range(layers + 1)]


def centroids_of(frames: Tensor, k: int) -> Tensor:
    """Return trained centroids."""
    found = train_kmeans(frames.numpy(), KMeansConfig(k=k), device=CPU)
    return torch.from_numpy(found.centroids)


def units_with_penalty(frames: Tensor, centroids: Tensor, penalty: float) -> Tensor:
    """Return the unit of each frame at a price for each change of unit."""
    return torch.from_numpy(units_of(frames, centroids, duration_penalty=penalty))


def unit_model(units: Tensor, *, k: int, subwords: int) -> bytes:
    """Return a model of unit subwords, trained on one sequence."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "units.model"
        UnitSubwords.train([units.numpy()], k=k, num_subwords=subwords, out=path)
        return path.read_bytes()


def unit_subwords(units: Tensor, model: bytes) -> Tensor:
    """Return the subwords of units."""
    return torch.from_numpy(UnitSubwords(model).encode(units.numpy()))


def text_model(text: str, *, subwords: int) -> bytes:
    """Return a model of text subwords, trained on one line."""
    with tempfile.TemporaryDirectory() as folder:
        SentencePieceText.train([text], size=subwords).save(Path(folder))
        return (Path(folder) / "text.model").read_bytes()


def text_ids(text: str, model: bytes | Literal["bytes", "characters"]) -> Tensor:
    """Return the ids of a text; characters are those of the text itself."""
    if isinstance(model, bytes):
        return torch.tensor(SentencePieceText(model).encode(text))
    tokenizer = ByteText() if model == "bytes" else CharacterText.train([text])
    return torch.tensor(tokenizer.encode(text))


def formatter_of(
    table: Sequence[DecoderTask], *, codes: Sequence[int] = (), units: int
) -> PromptFormatter:
    """Return what lays out sequences over bytes, units and codes."""
    tokens = {part.name for task in table for part in task.parts if part.kind == "token"}
    own = sorted(name[1:-1] for name in tokens if ":" not in name)
    vocabulary = Vocabulary.build(
        text=256,
        units=units,
        codes=codes,
        tasks=[task.name for task in table],
        languages=("de", "en"),
        genders=("f", "m"),
        speakers=("ann", "bob"),
        special=(*SPECIALS, *(name for name in own if name not in SPECIALS)),
        passport=None,
    )
    fields = Fields(vocabulary=vocabulary, text=ByteText(), subwords=None)
    return PromptFormatter(fields, pattern="delay")


def to_file(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a language model's weights under the names that its file has."""
    convert = to_opt if isinstance(model, OptModel) else to_llama
    return convert(weights, model.config)  # type: ignore[arg-type]


def from_file(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `to_file`."""
    convert = from_opt if isinstance(model, OptModel) else from_llama
    return convert(weights, model.config, where="golden")  # type: ignore[arg-type]


def next_token(
    model: nn.Module, formatter: PromptFormatter, table: Sequence[DecoderTask]
) -> nn.Module:
    """Return the trainable module of a language model."""
    names = [task.name for task in table]
    return NextToken(model, vocabulary=formatter.vocabulary, tasks=names)  # type: ignore[arg-type]


def generated(
    model: nn.Module,
    formatter: PromptFormatter,
    task: DecoderTask,
    records: Sequence[dict[str, Any]],
    decoding: Decoding,
) -> list[Hypothesis]:
    """Return a hypothesis for each record: tokens, score, truncated."""
    return generate(
        model,  # type: ignore[arg-type]
        [formatter.prompt(task, record) for record in records],
        allowed=formatter.allowed(task),
        eos=formatter.vocabulary.eos_id,
        decoding=decoding,
        levels=formatter.levels(task),
    )


def mel_regression(network: UnitNetwork) -> nn.Module:
    """Return the trainable module of a unit decoder with a ``mel`` head."""
    return MelRegression(network, LossConfig())


def judge_features(waveforms: Sequence[Tensor], num_mels: int) -> tuple[Tensor, Tensor]:
    """Return what the judge's network is given: features (B, T, M) and lengths (B,)."""
    return padded([normalized(log_mel(wave.numpy(), num_mels)) for wave in waveforms])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Source:
    batches: list[Any]

    def plan(self, window: int) -> list[int]:
        return list(range(len(self.batches)))

    def load(self, spec: int) -> Any:
        return self.batches[spec]


def losses_of_five_steps(
    module: nn.Module,
    batches: list[Any],
    out: Path,
    *,
    optimizer: Literal["adamw", "muon"] = "adamw",
) -> Tensor:
    """Return the losses of five steps of the trainer, and the norms of their gradients."""
    config = TrainConfig(
        steps=5, lr=3e-3, warmup_steps=2, optimizer=optimizer, log_every=1, device="cpu", threads=1
    )
    Trainer(config, networks={"model": module}, source=_Source(batches=batches), out=out).run()
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return torch.tensor([[one["loss"], one["grad_norm"]] for one in found], dtype=torch.float64)
