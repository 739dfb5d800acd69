"""How likely a model finds given targets: for choosing among candidates, and for perplexities."""

from collections.abc import Sequence

import torch

from unitone.lm.data.mixture import collate
from unitone.lm.decoder.generation import Model
from unitone.lm.decoder.layout import Example
from unitone.lm.decoder.model import NONE


@torch.inference_mode()
def log_likelihoods(model: Model, examples: Sequence[Example]) -> list[float]:
    """Return the sum of the log-probabilities of each example's target, in nats.

    All examples go through the model as one batch; their targets have one stream of tokens.
    """
    batch = collate([[(0, example)] for example in examples])
    device = next(model.parameters()).device
    targets = batch.targets.to(device)
    if targets.ndim == 3:  # codes among what is given
        targets = targets[..., 0]
    vectors = {
        kind: type(given)(values=given.values.to(device), where=given.where.to(device))
        for kind, given in batch.vectors.items()
    }
    states = model(batch.tokens.to(device), vectors=vectors)
    learnt = targets != NONE
    log_p = model.head(states[learnt]).float().log_softmax(dim=-1)
    found = log_p.gather(1, targets[learnt][:, None])[:, 0]
    rows = learnt.nonzero()[:, 0]
    sums = torch.zeros(len(examples), device=device).index_add(0, rows, found)
    return [float(total) for total in sums]
