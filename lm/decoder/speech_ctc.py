"""An auxiliary loss for recognition: the text, read off the states of the speech by CTC.

Little speech does not teach a decoder where the sounds are that it writes down; CTC (Graves et al.
2006) has to line text and speech up, and does it as a second loss of joint CTC/attention models
(Watanabe et al. 2017, eq. 12). Here it stands at the positions of the speech in a decoder-only
sequence. Its head is needed in training alone.

Axes: B rows, L positions, Q streams, D width, N speech positions, S text tokens, R examples, T most
positions of an example's speech, C text tokens and the blank, which is 0.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.batch import Batch
from unitone.lm.decoder.model import NONE
from unitone.lm.decoder.template import DecoderTask
from unitone.lm.tasks import SEQUENCES, SPEECH


def reads(task: DecoderTask) -> bool:
    """Tell whether ``task`` turns speech into its text, and does nothing else."""
    fields = [part for part in task.parts if part.name in SEQUENCES]
    given = [part.name for part in fields if not part.target]
    target = [part.name for part in fields if part.target]
    return target == ["text"] and len(given) == 1 and given[0] in SPEECH


class SpeechCtc(nn.Module):
    """The CTC loss of a batch's recognition examples."""

    _reads: Tensor

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
        self.register_buffer("_reads", torch.tensor([reads(t) for t in tasks]), persistent=False)

    def forward(self, states: Float[Tensor, "B L D"], batch: Batch) -> tuple[Tensor, Tensor]:
        """Return minus the log-likelihood of the texts, summed, and their number of tokens."""
        tokens, targets = batch.tokens, batch.targets
        if tokens.ndim == 3:
            tokens, targets = tokens[..., 0], targets[..., 0]
        mine = self._reads[batch.tasks]
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
