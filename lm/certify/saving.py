"""Checks of what is written: the model directory holds what was trained, each weight once."""

from torch import nn

from unitone.lm import families, family
from unitone.lm.certify.losses import CLOSE, Measured, off
from unitone.lm.certify.setup import NETWORK, LmSetUp
from unitone.train import checkpoint
from unitone.train.certify.setup import Finding, farthest
from unitone.train.certify.weights import hold


def saving(setup: LmSetUp) -> Finding:
    """A model directory gives the trained model back, tied weights tied."""
    run = setup.plain
    made = setup.prepared()
    measured = Measured(setup)
    measured.network = made.objective.train()
    hold(made.objective)
    checkpoint.load_weights(made.objective, run.saved()[NETWORK], where="the run")
    folder = setup.folder / "model"
    family.save(
        folder,
        family=families.of_size(setup.lm.config),
        model=made.model,
        vocabulary=made.words.vocabulary,
        table=made.table,
        tokenizer=made.words.tokenizer,
        codes=made.words.codes,
        null_share=made.null_share,
    )
    loaded = family.load(folder, device="cpu")
    rows = [[item] for item in setup.assorted]
    before = measured.total(rows)
    to_tensors = families.module(loaded.family, "weights").to_tensors  # without unused rows
    weights = [to_tensors(model) for model in (made.model, loaded.model)]
    apart = farthest(*weights)
    tied = [_shared(model) for model in (made.model, loaded.model)]
    sizes = [sum(p.numel() for p in model.parameters()) for model in (made.model, loaded.model)]
    setattr(made.objective, "model", loaded.model.train())  # noqa: B010
    hold(loaded.model)
    made.objective.to(next(loaded.model.parameters()).device)
    after = off(before, measured.total(rows))
    return Finding(
        what="the model directory holds each trained weight once",
        figure=f"{len(weights[0])} tensors, {sizes[0]} weights trained and {sizes[1]} loaded, "
        f"{tied[0]} and {tied[1]} names of shared ones; values differ by {apart[0]:.2g}"
        + (f" ({apart[1]})" if apart[0] else "")
        + f", the loss by {after:.2g} of itself",
        passed=apart[0] == 0 and sizes[0] == sizes[1] and tied[0] == tied[1] and after <= CLOSE,
        cure="the family's weights.py: what to_tensors writes and load_tensors expects, and what "
        "to_json says of tied weights",
    )


def _shared(model: nn.Module) -> int:
    """Return how many names of parameters are second names of another."""
    return len([*model.named_parameters(remove_duplicate=False)]) - len([*model.parameters()])
