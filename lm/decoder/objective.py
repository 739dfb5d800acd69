"""What a decoder-only model is trained on: cross-entropy of the targets, by task.

Axes: B rows, L positions, Q streams, N targets, V vocabulary.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.decoder.batch import Batch
from unitone.lm.decoder.model import NONE, LanguageModel
from unitone.lm.decoder.speech_ctc import SpeechCtc
from unitone.lm.interop.opt import OptModel
from unitone.train.trainer import Loss


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
