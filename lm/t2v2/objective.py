"""What T2V2 is trained on: CTC, masked units, lengths, correction and classes, in one step.

Recognition runs first; its posteriors, detached, align text and units (monotonic alignment search),
which spreads the text for synthesis and says what the lengths should be, and their argmax, masked,
is the draft that correction learns to repair. Everything is a mean over an utterance, and an
utterance counts one: losses don't depend on how utterances are batched.

Axes: B rows, T frames, S tokens, C classes of CTC (0 is the blank, k + 1 is text token k).
"""

from dataclasses import fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unitone.lm.losses import alignment
from unitone.lm.t2v2.batch import Batch, Rows
from unitone.lm.t2v2.model import T2V2, frames, log_p
from unitone.lm.t2v2.options import Alignment, Pieces
from unitone.train.network import Loss
from unitone.train.watch import Parts

MASKED = 0.6366
"""Mean share of masked units, 2 / pi (T2V2's cosine)."""
YOUNG, GROWN = 3.0, 1.0
"""Nats a token: CTC losses from and below which the diagonal guides the alignment, fully, not."""
PRIOR = 4.0
"""Weight of the diagonal beside log-posteriors, while CTC is young."""


class Joint(nn.Module):
    """The trainable module of T2V2."""

    calls_vary = True
    """How often the blocks run depends on which tasks a batch has, see `unitone.train.network`."""
    by_target = False
    """CTC's loss is over alignments, and masked units see both ways: `unitone.lm.certify` asks."""

    def __init__(self, model: T2V2, *, pieces: Pieces) -> None:
        """Train ``model``."""
        super().__init__()
        self.model = model
        self.pieces = pieces

    @property
    def blocks(self) -> list[nn.Module]:
        """Units of sharding and of compilation."""
        return list(self.model.conformer.blocks)

    def forward(self, batch: Batch) -> Loss:
        """Return the sum over the utterances; parts are sums over tokens, frames or utterances."""
        terms = _Terms()
        for name, rows in batch.rows.items():
            if name == "pair":
                self._pair(rows, terms)
            elif name in ("st", "mt"):
                self._translation(name, rows, terms)
            else:
                self._class(name, rows, terms)
        terms.losses.append(self._unused())
        total = torch.stack(terms.losses).sum()
        count = torch.tensor(sum(len(rows.units) for rows in batch.rows.values()))
        return Loss(total=total, count=count.to(total.device), parts=terms.parts)

    def _unused(self) -> Tensor:
        """Return 0 times what a batch may have no use for, so that every weight has a gradient."""
        parts = (part for name, part in self.model.named_children() if name != "conformer")
        weights = (weight for part in parts for weight in part.parameters())
        return 0.0 * torch.stack([weight.sum() for weight in weights]).sum()

    def _pair(self, rows: Rows, terms: "_Terms") -> None:
        """Recognition, speech alone; lengths; synthesis, correction."""
        fits = feasible(rows.text, rows.tokens, rows.frames)
        terms.note("left_out", (~fits).sum(), torch.tensor(len(fits)))
        if not fits.any():
            return
        rows = chosen(rows, fits)
        valid, pieces = frames(rows.frames, rows.units.shape[1]), self.pieces
        masked = rows.masked & valid
        hidden_units = rows.units.masked_fill(masked, self.model.mask_unit)
        unknown = torch.full_like(rows.speaker, -1)
        voice = {"language": rows.language, "speaker": rows.speaker}
        if pieces.speech:
            states = self.model(
                torch.cat((valid, valid)),
                units=torch.cat((rows.units, hidden_units)),
                language=torch.cat((unknown, rows.language)),
                speaker=torch.cat((unknown, rows.speaker)),
            )
            heard, alone = states.chunk(2)
            self._units("speech", alone, rows, masked, terms)
        else:
            heard = self.model(valid, units=rows.units)
        logits = self.model.ctc(heard)
        each = self._ctc("asr", logits, rows.text, rows.tokens, rows.frames, terms)
        inputs: list[tuple[Tensor, Tensor]] = []
        if pieces.synthesis:
            spread = self._spread(log_p(logits.detach()), each, rows, terms, voice)
            inputs.append((hidden_units, spread))
        if pieces.correction:
            inputs.append((rows.units, self._draft(logits, rows.hidden)))
        if not inputs:
            return
        many = len(inputs) > 1
        states = self.model(
            torch.cat((valid, valid)) if many else valid,
            units=torch.cat([units for units, _ in inputs]),
            text=torch.cat([text for _, text in inputs]),
            **(
                {name: torch.cat((ids, unknown)) for name, ids in voice.items()}
                if many
                else voice
                if pieces.synthesis
                else {}
            ),
        )
        parts = states.chunk(len(inputs))
        if pieces.synthesis:
            self._units("tts", parts[0], rows, masked, terms)
        if pieces.correction:
            logits = self.model.correction(parts[-1])
            self._ctc("correction", logits, rows.text, rows.tokens, rows.frames, terms)

    def _spread(
        self,
        posteriors: Float[Tensor, "B T C"],
        losses: Float[Tensor, "B"],
        rows: Rows,
        terms: "_Terms",
        voice: dict[str, Tensor],
    ) -> Int[Tensor, "B T"]:
        """Align; learn the lengths; return the text, a token a frame."""
        durations = align(self.pieces.align, posteriors, rows, losses)
        valid = frames(rows.tokens, rows.text.shape[1])
        states = self.model(valid, text=rows.text, **voice)
        guessed = self.model.length(states)[..., 0].float()
        errors = (guessed - durations.clamp(min=1).log()).abs() * valid
        each = errors.sum(dim=1)
        terms.add("length", each / rows.tokens, each.sum(), rows.tokens.sum())
        place = alignment.token_of_frame(durations, rows.units.shape[1])
        return rows.text.gather(1, place)

    def _draft(self, logits: Float[Tensor, "B T C"], hidden: Bool[Tensor, "B T"]) -> Tensor:
        """Return the argmax as the input spells it, masked."""
        return to_input(logits.detach().argmax(dim=-1), self.model).masked_fill(
            hidden, self.model.mask_text
        )

    def _units(
        self,
        name: str,
        states: Float[Tensor, "B T D"],
        rows: Rows,
        masked: Bool[Tensor, "B T"],
        terms: "_Terms",
    ) -> None:
        """Add the cross-entropy of the masked units."""
        entropies = F.cross_entropy(
            self.model.speech(states[masked]).float(), rows.units[masked], reduction="none"
        )
        row = masked.nonzero()[:, 0]
        each = entropies.new_zeros(len(masked)).index_add(0, row, entropies)
        terms.add(name, each / (MASKED * rows.frames), entropies.sum(), masked.sum())

    def _ctc(
        self,
        name: str,
        logits: Float[Tensor, "B T C"],
        text: Int[Tensor, "B S"],
        tokens: Int[Tensor, "B"],
        lengths: Int[Tensor, "B"],
        terms: "_Terms",
    ) -> Float[Tensor, "B"]:
        """Add a CTC loss; return it a token, detached."""
        each = F.ctc_loss(
            log_p(logits).transpose(0, 1),
            text + 1,
            lengths,
            tokens,
            reduction="none",
            zero_infinity=True,
        )
        terms.add(name, each / tokens, each.sum(), tokens.sum())
        return (each / tokens).detach()

    def _translation(self, name: str, rows: Rows, terms: "_Terms") -> None:
        """CTC over the text in the other language, and its correction."""
        given, lengths = inputs_of(name, rows, self.model.config.spread)
        fits = feasible(rows.target, rows.target_tokens, lengths)
        terms.note("left_out", (~fits).sum(), torch.tensor(len(fits)))
        if not fits.any():
            return
        rows = chosen(rows, fits)
        given, lengths = inputs_of(name, rows, self.model.config.spread)
        valid = frames(lengths, next(iter(given.values())).shape[1])
        logits = self.model.ctc(self.model(valid, to=rows.to, **given))
        self._ctc(name, logits, rows.target, rows.target_tokens, lengths, terms)
        if self.pieces.correction:
            draft = self._draft(logits, rows.hidden[:, : valid.shape[1]])
            states = self.model(valid, text=draft, to=rows.to, **given)
            logits = self.model.correction(states)
            self._ctc(f"{name}_correction", logits, rows.target, rows.target_tokens, lengths, terms)

    def _class(self, name: str, rows: Rows, terms: "_Terms") -> None:
        """Cross-entropy of the class of the speech."""
        valid = frames(rows.frames, rows.units.shape[1])
        kind = "language" if name == "lid" else "gender"
        logits = self.model.pooled(self.model(valid, units=rows.units), valid, kind)
        each = F.cross_entropy(logits.float(), rows.label, reduction="none")
        terms.add(name, each, each.sum(), torch.tensor(len(each)))


class _Terms:
    """The losses of a batch, as they come."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.parts: Parts = {}

    def add(self, name: str, each: Float[Tensor, "B"], total: Tensor, count: Tensor) -> None:
        """Count an utterance's mean once; note the sum over ``count`` items."""
        self.losses.append(each.sum())
        self.note(name, total.detach(), count)

    def note(self, name: str, total: Tensor, count: Tensor) -> None:
        """Add to what the log says."""
        before = self.parts.get(name, (0.0, 0.0))
        self.parts[name] = (before[0] + total, before[1] + count)


def align(
    how: Alignment,
    posteriors: Float[Tensor, "B T C"],
    rows: Rows,
    losses: Float[Tensor, "B"],
) -> Int[Tensor, "B S"]:
    """Return the frames of each token.

    Args:
        how: by monotonic alignment search over the posteriors of the text's tokens, blanks
            ignored; by CTC's best path; or evenly.
        posteriors: log-probabilities of CTC.
        rows: with text that fits, see `feasible`.
        losses: CTC's, a token: while they are high, posteriors say nothing, and a diagonal guides.
    """
    if how == "uniform":
        return alignment.uniform(rows.tokens, rows.frames, rows.text.shape[1])
    if how == "ctc":
        path = alignment.best_path(posteriors, rows.text + 1, rows.tokens, rows.frames)
        return alignment.durations_of(path, rows.frames, rows.text.shape[1])
    index = (rows.text + 1)[:, None].expand(-1, posteriors.shape[1], -1)
    scores = posteriors.gather(2, index).transpose(1, 2)  # the search goes frame by frame
    weight = PRIOR * ((losses - GROWN) / (YOUNG - GROWN)).clamp(0, 1)
    near = alignment.diagonal(rows.tokens, rows.frames, size=(scores.shape[1], scores.shape[2]))
    scores += weight[:, None, None] * near
    return alignment.monotonic(scores, rows.tokens, rows.frames)


def feasible(
    text: Int[Tensor, "B S"], tokens: Int[Tensor, "B"], lengths: Int[Tensor, "B"]
) -> Bool[Tensor, "B"]:
    """Return which rows have the frames that CTC needs for their text."""
    return (tokens > 0) & (tokens + alignment.repeats(text, tokens) <= lengths)


def inputs_of(name: str, rows: Rows, spread: int) -> tuple[dict[str, Tensor], Int[Tensor, "B"]]:
    """Return what a translation reads, and how many frames that is."""
    if name == "st":
        return {"units": rows.units}, rows.frames
    return {"source": rows.text.repeat_interleave(spread, dim=1)}, rows.tokens * spread


def to_input(classes: Int[Tensor, "B T"], model: T2V2) -> Int[Tensor, "B T"]:
    """Return CTC's classes as ids of the text input: the blank is `T2V2.fill`."""
    return torch.where(classes == 0, model.fill, classes - 1)


def chosen(rows: Rows, which: Bool[Tensor, "B"]) -> Rows:
    """Return some of the rows, without the padding that only the others needed."""
    if which.all():
        return rows
    kept = {one.name: getattr(rows, one.name)[which] for one in fields(rows)}
    frames_, text, target = (
        int(kept[name].max()) for name in ("frames", "tokens", "target_tokens")
    )
    spread = frames_ or kept["hidden"].shape[1]
    for name, longest in (
        ("units", frames_), ("masked", frames_), ("hidden", spread), ("text", text),
        ("target", target),
    ):  # fmt: skip
        kept[name] = kept[name][:, :longest]
    return Rows(**kept)
