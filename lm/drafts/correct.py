"""A decoder-only model's texts, judged and repaired by a T2V2: ``lm.decode --correct DIR``.

Of the texts that beam search has found, the one is taken that both models find likeliest: the
decoder-only model's log-probability and T2V2's, by CTC over all alignments, are added (as in hybrid
CTC/attention decoding, Watanabe et al. 2017). Then CTC's best path lays it over the frames, those
of which T2V2 is unsure are masked, and its correction head fills them in with the rest in view.

Axes: T frames, S tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from unitone import files
from unitone.errors import ConfigError, CorpusError
from unitone.lm.data.fields import Record
from unitone.lm.decoder.predictor import DecoderPredictor
from unitone.lm.drafts.predictor import DraftedRequest, open_drafter, translated
from unitone.lm.family import LoadedModel
from unitone.lm.losses import alignment
from unitone.lm.options import MAX_TOKENS
from unitone.lm.predictor import Prediction, Predictor
from unitone.lm.t2v2 import decoding
from unitone.lm.t2v2.decoding import Draft
from unitone.lm.t2v2.model import T2V2, log_p
from unitone.lm.t2v2.objective import feasible
from unitone.lm.t2v2.options import DecodingConfig
from unitone.lm.tasks import Task
from unitone.model_dir import WEIGHTS


@torch.inference_mode()
def likelihoods(
    model: T2V2, units: Int[Tensor, "T"], texts: Sequence[Sequence[int]]
) -> list[float]:
    """Return the log-likelihood of each text, by CTC; -inf where it has too few frames.

    Args:
        model: T2V2.
        units: of the frames, each as often as the model has frames a unit.
        texts: ids of the text block.
    """
    valid = torch.ones(1, len(units), dtype=torch.bool, device=units.device)
    heard = log_p(model.ctc(model(valid, units=units[None])))[0]
    found = []
    for text in texts:
        if not text:
            found.append(float(heard[:, 0].sum()))
            continue
        ids = torch.tensor([[*text]], device=units.device)
        length = torch.tensor([len(units)], device=units.device)
        size = torch.tensor([len(text)], device=units.device)
        loss = F.ctc_loss(heard[:, None], ids + 1, length, size, reduction="sum")
        fits = bool(feasible(ids, size, length))
        found.append(-float(loss) if fits else -torch.inf)
    return found


@torch.inference_mode()
def corrected(
    model: T2V2,
    units: Int[Tensor, "T"],
    text: Sequence[int],
    *,
    threshold: float,
    rounds: int,
) -> list[int]:
    """Return a text with what T2V2 is unsure of predicted again; one that doesn't fit stays.

    Arguments as of `likelihoods`, and as of `unitone.lm.t2v2.decoding.recognize`.
    """
    device = units.device
    ids = torch.tensor([[*text]], dtype=torch.long, device=device)
    sizes = [torch.tensor([count], device=device) for count in (len(text), len(units))]
    if not bool(feasible(ids, *sizes)):
        return [*text]
    valid = torch.ones(1, len(units), dtype=torch.bool, device=device)
    heard = log_p(model.ctc(model(valid, units=units[None])))
    path = alignment.best_path(heard, ids + 1, *sizes)
    classes = torch.where(path < 0, 0, ids.gather(1, path.clamp(min=0)) + 1)
    confidence = heard.gather(2, classes[..., None])[..., 0].exp()
    draft = Draft(classes=classes, confidence=confidence)
    found = decoding.refined(
        model, valid, {"units": units[None]}, draft, threshold=threshold, rounds=rounds
    )
    return decoding.collapsed(found.classes[0].cpu().numpy())


def open_corrected(
    folder: Path, loaded: LoadedModel, predictor: Predictor[Any], *, device: str = "auto"
) -> "CorrectedPredictor":
    """Return ``predictor``, of the decoder-only model ``loaded``, corrected by a T2V2.

    Raises:
        ConfigError: a model is of another family, they have different tokenizers, or the task
            reads no text off units.
        CheckpointError: the directory is damaged.
    """
    corrector = open_drafter(folder, loaded, device=device, option="--correct")
    assert isinstance(predictor, DecoderPredictor)
    return CorrectedPredictor(predictor, corrector)


class CorrectedPredictor:
    """Recognition by both models."""

    def __init__(
        self,
        predictor: DecoderPredictor,
        corrector: LoadedModel,
        *,
        config: DecodingConfig | None = None,
    ) -> None:
        """Put both together; ``config`` says how T2V2 corrects.

        Raises:
            ConfigError: the task reads no text off units.
        """
        task = predictor.task
        if task.output != "text" or "units" not in task.inputs:
            raise ConfigError(f"--correct: task {task.name} reads no text off units; use asr")
        self.task: Task = task
        self._predictor, self._corrector = predictor, corrector
        self._config = config or DecodingConfig()
        self._asr: Any = corrector.predictor("asr", config=self._config)

    @property
    def settings(self) -> dict[str, Any]:
        """Both searches, as JSON values."""
        model = files.sha256(self._corrector.folder / WEIGHTS)
        return {**self._predictor.settings, "correct": {"model": model, **self._asr.settings}}

    def request(self, record: Record, *, prefix: int = 0) -> DraftedRequest:
        """Return the request of a record; see `unitone.lm.predictor.Predictor`."""
        if prefix:
            raise ConfigError("--prefix: whole texts are corrected; leave one of them out")
        ours = self._predictor.formatter.vocabulary
        try:
            read = self._asr.request(translated(record, ours, self._corrector.vocabulary))
        except CorpusError:
            read = None  # longer than its context: judged by nobody
        return DraftedRequest(prompt=self._predictor.request(record), drafted=read)

    def batches(self, requests: Sequence[DraftedRequest], *, max_tokens: int) -> list[list[int]]:
        """Return the numbers of requests that go together."""
        return self._predictor.batches([one.prompt for one in requests], max_tokens=max_tokens)

    def predict(
        self, requests: Sequence[DraftedRequest], *, max_tokens: int = MAX_TOKENS
    ) -> list[Prediction]:
        """Return the predictions of one batch."""
        found = self._predictor.nbest([one.prompt for one in requests])
        return [self._chosen(one, several) for one, several in zip(requests, found, strict=True)]

    def _chosen(self, request: DraftedRequest, several: Sequence[Any]) -> Prediction:
        formatter, row = self._predictor.formatter, self._predictor.row
        block = formatter.vocabulary.block("text")
        texts = [
            [int(one) for one in block.decode(formatter.field(row, hypothesis.tokens))]
            for hypothesis in several
        ]
        best, text = several[0], texts[0]
        if request.drafted is not None:
            model = self._corrector.model
            device = next(model.parameters()).device
            units = torch.from_numpy(request.drafted.given.units).to(device)
            scores = likelihoods(model, units, texts)
            lengths = [max(len(one), 1) for one in texts]
            both = [one.log_p + score for one, score in zip(several, scores, strict=True)]
            rank = max(range(len(several)), key=lambda place: both[place] / lengths[place])
            settings = self._asr.config
            best, text = several[rank], texts[rank]
            text = corrected(
                model, units, text, threshold=settings.threshold, rounds=settings.rounds
            )
        tokens = [int(one) for one in block.encode(torch.tensor(text, dtype=torch.int32).numpy())]
        return formatter.prediction(row, tokens, score=best.score, truncated=best.truncated)
