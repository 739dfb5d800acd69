"""Where the tour's model looks while it recognizes: text tokens over the time of the recording."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from unitone.errors import CorpusError
from unitone.lm.data.fields import Fields
from unitone.lm.decoder.layout import PromptFormatter
from unitone.lm.decoder.model import LanguageModel
from unitone.lm.decoder.predictor import open_formatter
from unitone.lm.decoder.template import DecoderTask
from unitone.lm.tasks import select
from unitone.recipes.tour import attention_maps
from unitone.recipes.tour.files import Row, TourFiles
from unitone.report import figures, page
from unitone.tokenizers.text.subwords import UnitSubwords

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EXAMPLES = 8
"""Utterances that the head is chosen by."""
_LONGEST = 3.0
"""Seconds; the figure of a longer one is too wide to read."""
_FAINT = 0.02
"""Cells paler than this share of the deepest are not drawn."""


@dataclass(frozen=True, kw_only=True)
class UtteranceAttention:
    """One utterance: where every head looks while the model writes its text."""

    row: Row
    weights: Float[np.ndarray, "layers heads N M"]
    tokens: tuple[str, ...]
    """The N text tokens as they are read."""
    edges: Float[np.ndarray, "_"]
    """Where the M speech tokens begin, and the last one ends, in seconds."""


def section(tour: TourFiles) -> str:
    """Return the heat map of one utterance, and how much every head reads in order."""
    loaded = tour.model
    if not isinstance(loaded.model, LanguageModel):
        raise CorpusError("attention is drawn of models in the Llama layout; this is another")
    (task,) = select(loaded.table, ["asr"])
    formatter = open_formatter(loaded)
    rows = tour.tokens(well_recognized(tour))
    found = [
        _attention(tour, row, loaded.model, formatter=formatter, task=task) for row in rows.values()
    ]
    shares = attention_maps.monotone_shares([one.weights for one in found])
    layer, head = (int(n) for n in np.unravel_index(int(shares.argmax()), shares.shape))
    one = sorted(found, key=lambda one: len(one.tokens))[len(found) // 2]
    own = attention_maps.monotone_share(one.weights[layer, head])
    chance = float(np.mean([1 / len(one.tokens) for one in found]))
    weights = one.weights[layer, head]
    svg = over_time(
        f"Attention over time, {one.row['id']}",
        weights,
        tokens=one.tokens,
        edges=one.edges,
        phones=tour.manifest.get(one.row["id"], {}).get("phones", ()),
    )
    caption = (
        f"{one.row['id']}: where layer {layer + 1}, head {head + 1} looks while the model writes "
        "each token of the text (rows, from top to bottom), over the time of the recording (a "
        "column is a speech token; above, the phones). The deepest cell is "
        f"{weights.max():.0%} of a row's attention. Of all heads this one reads most in order: "
        f"{shares[layer, head]:.0%} of its attention lies along the best cutting of the recording "
        "into one stretch after the other for the tokens, the mean over the "
        f"{len(found)} best recognized short test utterances ({own:.0%} in this one, of middle "
        f"length; {chance:.0%} by chance). The model was given the true text to write."
    )
    return page.figure(svg, caption, wide=True) + _all_heads(shares)


def well_recognized(tour: TourFiles) -> list[str]:
    """Return the utterances that were recognized best and are short enough to draw."""
    scored = tour.lines("scores", "asr", "utterances.jsonl")
    errors = {
        line["id"]: line["substitutions"] + line["deletions"] + line["insertions"]
        for line in scored
    }
    short = [
        name
        for name in errors
        if tour.manifest.get(name, {}).get("duration", _LONGEST + 1) <= _LONGEST
    ]
    if not short:
        raise CorpusError(f"no scored test utterance is shorter than {_LONGEST:g} s")
    return sorted(short, key=lambda name: errors[name])[:_EXAMPLES]


def _attention(
    tour: TourFiles,
    row: Row,
    model: LanguageModel,
    *,
    formatter: PromptFormatter,
    task: DecoderTask,
) -> UtteranceAttention:
    fields = formatter.fields
    record = fields.record(row)
    example = formatter.example(task, record)
    unit = fields.vocabulary.block("unit")
    where = (example.tokens >= unit.start) & (example.tokens < unit.end)
    # the last target ends the text
    weights = attention_maps.weights(model, example, of=where)[:, :, :-1]
    return UtteranceAttention(
        row=row,
        weights=weights,
        tokens=spelled(fields, record["text"]),
        edges=edges_of(tour, row, fields.subwords),
    )


def spelled(fields: Fields, ids: Int[np.ndarray, "N"]) -> tuple[str, ...]:
    """Return text tokens as they are read, with a sign for a space and for nothing."""
    read = [fields.text_of(ids.tolist()[:count]) for count in range(len(ids) + 1)]
    return tuple(
        whole.removeprefix(before).replace(" ", "␣") or "·" for before, whole in pairwise(read)
    )


def edges_of(tour: TourFiles, row: Row, subwords: UnitSubwords | None) -> Float[np.ndarray, "_"]:
    """Return where a row's speech tokens begin, and the last one ends, in seconds."""
    units = np.asarray(row["units"], np.int32)
    lasting = np.asarray(row["durations"] or np.ones(len(units)), np.float64)
    ends = np.concatenate([[0.0], np.cumsum(lasting)]) / tour.shards.passport.frames.frame_rate
    if subwords is None:
        return ends
    sizes = [len(subwords.decode(one[None])) for one in subwords.encode(units)]
    found: np.ndarray = ends[np.concatenate([[0], np.cumsum(sizes)])]
    return found


def over_time(
    title: str,
    weights: Float[np.ndarray, "N M"],
    *,
    tokens: Sequence[str],
    edges: Float[np.ndarray, "_"],
    phones: Sequence[Sequence[Any]],
    path: Int[np.ndarray, "M"] | None = None,
) -> str:
    """Draw text tokens (rows) over the time of a recording, depth by weight.

    Args:
        title: what a screen reader says.
        weights: of each text token at each speech token.
        tokens: as they are read.
        edges: where the speech tokens begin, and the last one ends, in seconds.
        phones: symbol, start and end, in seconds.
        path: the text token of each speech token, outlined.
    """
    depth = weights / weights.max()

    def draw(axes: "Axes") -> None:
        from matplotlib.patches import Rectangle

        for row, column in np.argwhere(depth >= _FAINT):
            start, end = (float(edge) for edge in edges[column : column + 2])
            color = (*figures.HEAT, 0.95 * float(depth[row, column]) ** 0.7)
            axes.add_patch(Rectangle((start, row), end - start, 0.94, facecolor=color, linewidth=0))
        for row in np.unique(path) if path is not None else ():
            columns = np.flatnonzero(path == row)
            start, end = float(edges[columns[0]]), float(edges[columns[-1] + 1])
            box = Rectangle((start, row), end - start, 0.94, fill=False, linewidth=1.2)
            box.set_edgecolor(figures.ACCENT)
            axes.add_patch(box)
        axes.set(xlim=(0, edges[-1]), ylim=(len(tokens), -0.9), xlabel="seconds", ylabel="")
        axes.set_yticks(np.arange(len(tokens)) + 0.5, list(tokens))
        axes.tick_params(axis="y", length=0, labelcolor=figures.INK)
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        for symbol, start, end in phones:
            axes.axvline(start, color=figures.LINE, linewidth=0.6, zorder=0)
            if symbol != "_":
                axes.text(
                    *((start + end) / 2, -0.35, symbol),
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=figures.MUTED,
                )

    return figures.svg(title, draw, size=(9.2, 1.0 + 0.26 * len(tokens)))


def _all_heads(shares: Float[np.ndarray, "layers heads"]) -> str:
    svg = figures.heat_map(
        "Attention in order, by head",
        shares.astype(np.float64),
        rows=[str(layer + 1) for layer in range(shares.shape[0])],
        columns=[str(head + 1) for head in range(shares.shape[1])],
        written=[[f"{100 * share:.0f}" for share in layer] for layer in shares.tolist()],
        xlabel="head",
        ylabel="layer",
    )
    return page.grid(page.figure(svg, "The same share of every head, in per cent."))
