"""How the non-autoregressive model of the tour does it: alignment, lengths, filling, correction."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int

from unitone import seeding
from unitone.errors import CorpusError
from unitone.eval import examples
from unitone.eval.metrics.edits import align
from unitone.lm import family
from unitone.lm.family import LoadedModel
from unitone.lm.t2v2 import decoding, objective
from unitone.lm.t2v2.batch import Rows, T2V2Batching, rows_of
from unitone.lm.t2v2.model import T2V2, frames, log_p
from unitone.lm.t2v2.options import DecodingConfig
from unitone.lm.tasks import select
from unitone.recipes.tour import attention
from unitone.recipes.tour.files import Row, TourFiles
from unitone.recipes.tour.stages import NAR
from unitone.report import figures, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CORRECTED = 6
"""Utterances whose correction is shown."""
_LOOKED_AT = 300
"""Hypotheses in which corrections are looked for."""


def section(tour: TourFiles) -> str:
    """Return the figures of one utterance, and corrections of several.

    Raises:
        CorpusError: the model is not there, or is of another family.
    """
    tour.json(NAR, "best", "config.json")  # says what is not there
    loaded = family.load(tour.folder / NAR / "best", device="cpu")
    if not isinstance(loaded.model, T2V2):
        raise CorpusError(f"{NAR}/best is of another family")
    names = attention.well_recognized(tour)
    (row,) = tour.tokens(names[:1]).values()
    with torch.inference_mode():
        return _one(tour, loaded, row) + _corrections(tour, loaded)


def _rows(loaded: LoadedModel, found: Sequence[Row]) -> Rows:
    """Return rows of the shards as the model reads a pair of speech and text."""
    shape = loaded.model.config
    batching = T2V2Batching(
        vocabulary=loaded.vocabulary,
        tasks=select(loaded.table, ["asr"]),
        upsample=shape.upsample,
        spread=shape.spread,
        longest=shape.context,
    )
    return rows_of([batching.given(loaded.fields.record(row), "pair") for row in found])


def _one(tour: TourFiles, loaded: LoadedModel, row: Row) -> str:
    model, rows = loaded.model, _rows(loaded, [row])
    posteriors = log_p(model.ctc(model(frames(rows.frames), units=rows.units)))
    durations = objective.align("mas", posteriors, rows, torch.zeros(1))
    text = loaded.vocabulary.block("text").encode(rows.text[0].numpy())
    tokens = attention.spelled(loaded.fields, text)
    edges = attention.edges_of(tour, row, loaded.fields.subwords)
    up, frame_count = model.config.upsample, posteriors.shape[1]
    svg = attention.over_time(
        f"Alignment, {row['id']}",
        posteriors[0].exp()[:, rows.text[0] + 1].T.numpy(),
        tokens=tokens,
        edges=np.interp(np.arange(frame_count + 1) / up, np.arange(len(edges)), edges),
        phones=tour.manifest.get(row["id"], {}).get("phones", ()),
        path=np.repeat(np.arange(len(tokens)), durations[0].numpy()),
    )
    drawn = page.figure(
        svg,
        f"{row['id']}: how sure recognition (CTC) is of each token of the text at each unit of the "
        "speech, and, outlined, the alignment that synthesis learns from: monotonic alignment "
        "search over these very posteriors. No other aligner is used. Between peaks CTC says "
        "blank, which the search ignores.",
        wide=True,
    )
    return drawn + page.grid(
        _durations(model, rows, durations[0].numpy(), tokens), _filling(model, rows, row["id"])
    )


def _durations(
    model: T2V2, rows: Rows, aligned: Int[np.ndarray, "S"], tokens: Sequence[str]
) -> str:
    voice = {"language": rows.language, "speaker": rows.speaker}
    guessed = decoding.lengths(model, rows.text, rows.tokens, voice, scale=1.0)[0].numpy()

    def draw(axes: "Axes") -> None:
        places = np.arange(len(tokens))
        axes.bar(places, aligned, width=0.7, color=figures.LINE, label="aligned")
        axes.plot(places, guessed, "o", color=figures.SERIES, markersize=4, label="predicted")
        axes.set_xticks(places, list(tokens), rotation=90)
        axes.set(ylabel="units", xlabel="")
        axes.legend(frameon=False, labelcolor=figures.INK, ncols=2, loc="upper left")

    svg = figures.svg("Units of each token", draw)
    return page.figure(svg, "Units of each token of the text: aligned, and as the model expects.")


def _filling(model: T2V2, rows: Rows, name: str) -> str:
    voice = {"language": rows.language, "speaker": rows.speaker}
    durations = decoding.lengths(model, rows.text, rows.tokens, voice, scale=1.0)
    spread, total = decoding.spread(rows.text, durations)
    count = total // model.config.upsample
    how, hidden = DecodingConfig(), list[torch.Tensor]()
    decoding.fill(
        model,
        torch.full((1, int(count)), model.mask_unit),
        spread,
        count,
        voice,
        how=decoding.Synthesis(
            passes=how.passes,
            guidance=how.guidance,
            twin=how.twin,
            temperature=how.temperature,
        ),
        generators=[seeding.stream(0, "report", name)],
        seen=hidden,
    )
    masked = np.stack([mask[0].numpy() for mask in hidden] + [np.zeros(int(count), bool)])

    def draw(axes: "Axes") -> None:
        before = np.ones(int(count), bool)
        for turn, now in enumerate(masked):
            image = np.zeros((1, int(count), 4))
            image[..., :3] = figures.HEAT
            image[0, ~now, 3] = 0.3
            image[0, before & ~now, 3] = 0.95
            axes.imshow(image, extent=(0, int(count), turn + 0.9, turn), aspect="auto")
            before = now
        axes.set(xlim=(0, int(count)), ylim=(len(masked), 0), xlabel="unit", ylabel="pass")
        axes.set_yticks(np.arange(len(masked)) + 0.45, [str(n + 1) for n in range(len(masked))])
        axes.grid(visible=False)

    svg = figures.svg("Order of filling", draw)
    return page.figure(
        svg,
        "The same sentence synthesized, pass by pass: units that a pass fills in are deep, those "
        "from before pale, those still masked empty.",
    )


def _corrections(tour: TourFiles, loaded: LoadedModel) -> str:
    """Return the edits that correction makes to what CTC alone says."""
    found = list(
        tour.tokens(one["id"] for one in tour.hypotheses(f"{NAR}/asr")[:_LOOKED_AT]).values()
    )
    rows = _rows(loaded, found)
    how, valid, given = DecodingConfig(), frames(rows.frames), {"units": rows.units}
    texts = []
    for rounds in (0, how.rounds):
        draft = decoding.recognize(
            loaded.model, valid, given, threshold=how.threshold, rounds=rounds
        )
        texts.append([_read(loaded, one) for one in _split(draft.classes, rows.frames)])
    changed = [(row, *pair) for row, *pair in zip(found, *texts, strict=True) if pair[0] != pair[1]]
    better, worse = 0, 0
    for row, before, after in changed:
        change = _errors(row["text"], after) - _errors(row["text"], before)
        better, worse = better + (change < 0), worse + (change > 0)
    shown = [
        examples.utterance(
            row["id"],
            [f"said: {row['text']}"],
            examples.alignment(align(before.split(), after.split())),
        )
        for row, before, after in changed[:_CORRECTED]
    ]
    return (
        "<h3>Corrections</h3>"
        + page.note(
            f"CTC's own text above, the corrected one below. Of {len(found)} test utterances "
            f"correction changes {len(changed)}: {better} for the better, {worse} for the worse."
        )
        + (examples.legend() if shown else "")
        + "".join(shown)
    )


def _split(classes: Int[torch.Tensor, "B T"], lengths: Int[torch.Tensor, "B"]) -> list[np.ndarray]:
    return [row[:length].numpy() for row, length in zip(classes, lengths.tolist(), strict=True)]


def _read(loaded: LoadedModel, classes: Int[np.ndarray, "T"]) -> str:
    ids = decoding.collapsed(classes)
    return loaded.fields.text_of(loaded.vocabulary.block("text").encode(ids))


def _errors(text: str, found: str) -> int:
    return sum(step.kind != "hit" for step in align(text.split(), found.split()))
