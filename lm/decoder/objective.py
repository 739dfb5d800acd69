"""What a decoder-only model is trained on: cross-entropy of the targets, by task, and CTC.

Little speech does not teach a decoder where the sounds are that it writes down; CTC (Graves et al.
2006) has to line text and speech up, and does it as a second loss of joint CTC/attention models
(Watanabe et al. 2017, eq. 12). Here it stands at the positions of the speech in a decoder-only
sequence. Its head is needed in training alone.

Axes: B rows, L positions, Q streams, V vocabulary, D width, N targets or speech positions, S text
tokens, R examples, T most positions of an example's speech, C text tokens and the blank, 0.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.batch import Batch
from unitone.lm.decoder.model import NONE, LanguageModel
from unitone.lm.decoder.template import DecoderTask
from unitone.lm.interop.opt import OptModel
from unitone.lm.tasks import SEQUENCES, SPEECH
from unitone.train.trainer import Loss


def recognizes(task: DecoderTask) -> bool:
    """Tell whether ``task`` turns speech into its text, and does nothing else."""
    fields = [part for part in task.parts if part.name in SEQUENCES]
    given = [part.name for part in fields if not part.target]
    target = [part.name for part in fields if part.target]
    return target == ["text"] and len(given) == 1 and given[0] in SPEECH


class SpeechCtc(nn.Module):
    """The CTC loss of a batch's recognition examples."""

    _recognition: Tensor

    def __init__(self, width: int, *, vocabulary: Vocabulary, tasks: Sequence[DecoderTask]) -> None:
        """Prepare for states of ``width``; ``tasks`` are in the order of their numbers."""
        super().__init__()
        text = vocabulary.block("text")
        self.head = nn.Linear(width, text.size + 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._text = (text.start, text.end)
        speech = (vocabulary.block("unit"), *vocabulary.codes)
        self._speech = [(block.start, block.end) for block in speech]
        self._mask = vocabulary.id("<mask>")
        mine = torch.tensor([recognizes(task) for task in tasks])
        self.register_buffer("_recognition", mine, persistent=False)

    def forward(self, states: Float[Tensor, "B L D"], batch: Batch) -> tuple[Tensor, Tensor]:
        """Return minus the log-likelihood of the texts, summed, and their number of tokens."""
        tokens, targets = batch.tokens, batch.targets
        if tokens.ndim == 3:
            tokens, targets = tokens[..., 0], targets[..., 0]
        mine = self._recognition[batch.tasks]
        spoken = mine & (targets == NONE) & self._is_speech(tokens, batch)
        start, end = self._text
        written = mine & (targets >= start) & (targets < end)
        example = _examples(batch)
        both = _count(example[spoken], example) * _count(example[written], example) > 0
        spoken, written = spoken & both[example], written & both[example]
        log_p, lengths = _padded(self.head(states[spoken]).float().log_softmax(-1), example[spoken])
        texts, sizes = _padded(targets[written] - start + 1, example[written])
        if not len(sizes):
            return log_p.sum(), sizes.sum()
        total = F.ctc_loss(
            log_p.transpose(0, 1), texts, lengths, sizes, reduction="sum", zero_infinity=True
        )
        return total, sizes.sum()

    def _is_speech(self, tokens: Tensor, batch: Batch) -> Bool[Tensor, "B L"]:
        found = tokens == self._mask
        for start, end in self._speech:
            found = found | ((tokens >= start) & (tokens < end))
        features = batch.vectors.get("features")
        return found if features is None else found | features.where


def _examples(batch: Batch) -> Int[Tensor, "B L"]:
    """Return the number of the example that each position belongs to, rising in a row."""
    rows, length = batch.tasks.shape
    row = torch.arange(rows, device=batch.tasks.device)[:, None]
    if batch.segments is None:
        return row.expand(rows, length)
    return row * length + batch.segments.clamp(min=0)


def _count(some: Int[Tensor, "N"], every: Tensor) -> Tensor:
    return torch.bincount(some, minlength=int(every.max()) + 1)


def _padded(values: Tensor, example: Int[Tensor, "N"]) -> tuple[Tensor, Int[Tensor, "R"]]:
    """Return the values of each example as a row, and their numbers."""
    _, row, lengths = example.unique_consecutive(return_inverse=True, return_counts=True)
    first = lengths.cumsum(0) - lengths
    place = torch.arange(len(example), device=example.device) - first[row]
    longest = int(lengths.max()) if len(lengths) else 0
    padded = values.new_zeros((len(lengths), longest, *values.shape[1:]))
    return padded.index_put((row, place), values), lengths


class NextToken(nn.Module):
    """The trainable module of a language model."""

    def __init__(
        self,
        model: LanguageModel | OptModel,
        *,
        vocabulary: Vocabulary,
        tasks: Sequence[str],
        label_smoothing: float = 0.0,
        ctc: SpeechCtc | None = None,
        ctc_weight: float = 0.0,
    ) -> None:
        """Train ``model``; the parts of the loss are called after ``tasks``, and ``ctc``."""
        super().__init__()
        self.model = model
        self.ctc, self.ctc_weight = ctc, ctc_weight
        self.tasks = tuple(tasks)
        self.label_smoothing = label_smoothing
        self._levels = [(block.start, block.end) for block in vocabulary.codes]

    @property
    def blocks(self) -> list[nn.Module]:
        """Units of sharding and of compilation."""
        return self.model.blocks

    def forward(self, batch: Batch) -> Loss:
        """Return the sum over the targets; parts are cross-entropies, unsmoothed."""
        states = self.model(
            batch.tokens,
            positions=batch.positions,
            segments=batch.segments,
            vectors=batch.vectors,
        )
        if batch.targets.ndim == 3:
            losses, entropies, tasks = self._streams(states, batch)
        else:
            learnt = batch.targets != NONE
            logits = self.model.head(states[learnt])
            losses, entropies = smoothed(logits, batch.targets[learnt], self.label_smoothing)
            tasks = batch.tasks[learnt]
        sums = losses.new_zeros(len(self.tasks)).index_add(0, tasks, entropies.detach())
        counts = torch.bincount(tasks, minlength=len(self.tasks))
        parts = {name: (sums[n], counts[n]) for n, name in enumerate(self.tasks)}
        total = losses.sum()
        if self.ctc is not None:
            sum_of, count = self.ctc(states, batch)
            total = total + self.ctc_weight * sum_of
            parts["ctc"] = (sum_of.detach(), count)
        return Loss(total=total, count=counts.sum(), parts=parts)

    def _streams(self, states: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Stream 0 chooses among all tokens, stream q > 0 among the codes of level q."""
        found = []
        for stream in range(batch.targets.shape[2]):
            targets = batch.targets[..., stream]
            learnt = targets != NONE
            start, end = self._levels[stream] if stream else (0, None)
            logits = self.model.head(states[learnt], slice(start, end) if stream else None)
            targets = targets[learnt] - start
            losses, entropies = smoothed(logits, targets, self.label_smoothing)
            found.append((losses, entropies, batch.tasks[learnt]))
        losses, entropies, tasks = (torch.cat(column) for column in zip(*found, strict=True))
        return losses, entropies, tasks


def smoothed(
    logits: Float[Tensor, "N V"], targets: Int[Tensor, "N"], smoothing: float
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Return the cross-entropy with label smoothing (arXiv 1512.00567) and the one without."""
    log_p = logits.float().log_softmax(dim=-1)
    entropies = -log_p.gather(1, targets[:, None])[:, 0]
    if not smoothing:
        return entropies, entropies
    return (1 - smoothing) * entropies - smoothing * log_p.mean(dim=-1), entropies
