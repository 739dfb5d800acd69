"""What the tour's model generates, for listening: every sound is measured before it is shown."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from unitone.corpus import audio
from unitone.corpus.audio import SAMPLE_RATE, Clip
from unitone.errors import CorpusError, UnitoneError
from unitone.recipes.tour.files import Row, TourFiles
from unitone.report import page
from unitone.report.page import Html
from unitone.tokenizers.text.subwords import UnitSubwords

LONGEST = 6.0
"""Seconds of a sound that are put into the page: it stays small whatever the model generates."""
SILENT = -50.0
"""Decibels below full scale, as root mean square: anything quieter counts as silent."""
CLIPPED = 3
"""So many samples at full scale in a row are clipped."""
_CONTINUED = 3


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A sound and what is to be known of it."""

    wave: Float[np.ndarray, "N"]
    """16 kHz."""

    @property
    def seconds(self) -> float:
        """Its duration."""
        return len(self.wave) / SAMPLE_RATE

    @property
    def peak(self) -> float:
        """Its largest sample, of full scale."""
        return float(np.abs(self.wave).max(initial=0.0))

    @property
    def level(self) -> float:
        """Its root mean square in decibels of full scale."""
        power = float(np.mean(np.square(self.wave, dtype=np.float64))) if len(self.wave) else 0.0
        return 10 * float(np.log10(max(power, 1e-20)))

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with it: silent, clipped."""
        full = np.abs(self.wave) >= 0.999
        stretches = np.convolve(full, np.ones(CLIPPED), "valid") if len(full) >= CLIPPED else full
        clipped = bool(stretches.max(initial=0.0) >= CLIPPED)
        return (*(("silent",) if self.level < SILENT else ()), *(("clipped",) if clipped else ()))


def measure(clip: Clip) -> Measured:
    """Read a sound, silence included.

    Raises:
        CorpusError: it is missing, or no sound.
    """
    return Measured(wave=np.concatenate([np.zeros(0, np.float32), *audio.stream(clip)]))


def sound(name: str, clip: Clip, *, label: str) -> Html:
    """Return a player under its name and its measurements, or why there is none."""
    try:
        measured = measure(clip)
    except CorpusError:
        return _beside(name, Html("not there"), Html(""))
    remark = f"{measured.seconds:.2f} s, peak {measured.peak:.2f}"
    if measured.seconds > LONGEST:
        remark += f", the first {LONGEST:g} s of it"
    flags = "".join(f' <strong class="bad">{fault}</strong>' for fault in measured.faults)
    player = page.player(_wav(measured.wave[: round(LONGEST * SAMPLE_RATE)]), label=label)
    return _beside(name, Html(page.escaped(remark) + flags), player)


def _beside(name: str, remark: Html, player: Html) -> Html:
    return Html(
        f'<div class="sound"><p>{page.escaped(name)} <span>{remark}</span></p>{player}</div>'
    )


def _wav(wave: Float[np.ndarray, "N"]) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, wave, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def synthesis(tour: TourFiles) -> str:
    """Return, for one test sentence of each language and sex, three players."""
    picked = first_of(tour.hypotheses("tts"), "language", "gender")
    resynthesized, why_not = _resynthesized(tour)
    judged = _judged(tour)
    shown = []
    for one in picked:
        row = one["reference"]
        voice = f"{row.get('speaker', '?')}, {row.get('gender', '?')}"
        players = [
            sound("Recording", Clip(path=tour.recording(row)), label=f"{row['id']}, the recording")
        ]
        if row["id"] in resynthesized:
            players.append(
                sound(
                    "Its units, as sound again",
                    Clip(path=resynthesized[row["id"]]),
                    label=f"{row['id']}, resynthesized",
                )
            )
        players.append(
            sound(
                "The model, from the text",
                Clip(path=path_of(tour, "tts", one)),
                label=f"{row['id']}, synthesized by the model",
            )
        )
        remarks = [row.get("language", ""), voice]
        remarks += ["cut off at the cap on its length"] if one.get("truncated") else []
        body = text_of(row["text"]) + side_by_side(players)
        if row["id"] in judged:
            body += page.note(judged[row["id"]])
        shown.append(utterance(row["id"], remarks, body))
    return page.note(
        "The first test sentence of each language and sex, not chosen by ear. A recording's "
        "units as sound again, with its own timing, are the best that the model could do. The "
        "model itself was given the text and the name of the voice, and the unit decoder times "
        "what it generates." + why_not
    ) + "".join(shown)


def continuation(tour: TourFiles) -> str:
    """Return, for one test sentence of each language, the prompt and what the model made of it."""
    prefix = int(tour.json("hyp", "continue.decoding.json")["settings"]["prefix"])
    found = [one for one in tour.hypotheses("continue") if one.get("audio")]
    rows = tour.tokens(one["id"] for one in found)
    given = {name: prompt_seconds(tour, row, prefix=prefix) for name, row in rows.items()}
    longer = [one for one in found if given.get(one["id"]) is not None]
    if not longer:
        raise CorpusError(f"no sentence is longer than the prompt of {prefix} tokens")
    shown = []
    for one in first_of(longer, "language")[:_CONTINUED]:
        row, seconds = one["reference"], given[one["id"]]
        recording = tour.recording(row)
        players = [
            sound(
                "Prompt, as recorded",
                Clip(path=recording, duration=seconds),
                label=f"{row['id']}, the prompt",
            ),
            sound(
                "Prompt and continuation",
                Clip(path=path_of(tour, "continue", one)),
                label=f"{row['id']}, continued by the model",
            ),
            sound("The whole recording", Clip(path=recording), label=f"{row['id']}, whole"),
        ]
        remarks = [row.get("language", ""), f"the first {seconds:.2f} s were given"]
        shown.append(utterance(row["id"], remarks, text_of(row["text"]) + side_by_side(players)))
    return page.note(
        f"The model is given the first {prefix} tokens of speech and goes on by itself, drawing "
        "one token after the other. There is no right answer. The unit decoder gives it the voice "
        "of the recording."
    ) + "".join(shown)


def prompt_seconds(tour: TourFiles, row: Row, *, prefix: int) -> float | None:
    """Return how long the first ``prefix`` tokens of a row's speech last; None if they are all."""
    units = np.asarray(row["units"], np.int32)
    model = tour.folder / "lm" / "best" / "tokenizer" / "units.model"
    count = prefix
    if tour.shards.passport.unit_pieces:
        subwords = UnitSubwords.load(model)
        tokens = subwords.encode(units)
        if len(tokens) <= prefix:
            return None
        count = len(subwords.decode(tokens[:prefix]))
    if count >= len(units):
        return None
    lasting = row["durations"] or [1] * len(units)
    return float(sum(lasting[:count]) / tour.shards.passport.frames.frame_rate)


def first_of(found: Iterable[Row], *fields: str) -> list[Row]:
    """Return the first hypothesis for each combination of what the corpus says in ``fields``."""
    first: dict[tuple[str, ...], Row] = {}
    for one in found:
        first.setdefault(tuple(str(one["reference"].get(field)) for field in fields), one)
    return [first[key] for key in sorted(first)]


def _resynthesized(tour: TourFiles) -> tuple[dict[str, Path], str]:
    """Return the files by id, and a remark where there are none."""
    try:
        lines = tour.lines("resynthesis", "manifest.jsonl")
    except UnitoneError as error:
        return {}, f" There is no resynthesis to compare with: {error}."
    folder = tour.folder / "resynthesis"
    return {line["id"]: folder / line["audio"] for line in lines}, ""


def _judged(tour: TourFiles) -> dict[str, str]:
    """Return by id what the ASR judge recognized; nothing where there was none."""
    try:
        lines = tour.lines("scores", "tts", "utterances.jsonl")
    except UnitoneError:
        return {}
    return {
        line["id"]: f"The ASR judge recognized: {line['synthesised'] or '(nothing)'}. "
        f"In the recording: {line['floor'] or '(nothing)'}."
        for line in lines
    }


def path_of(tour: TourFiles, task: str, hypothesis: Row) -> Path:
    """Return the file of a hypothesis; a path that isn't there, where it has none."""
    try:
        return tour.sound_of(task, hypothesis)
    except CorpusError:
        return Path()  # shown as not there


def text_of(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{page.escaped(text)}</p>"


def side_by_side(players: Sequence[Html]) -> str:
    """Lay players out in a row."""
    return f'<div class="sounds">{"".join(players)}</div>'


def utterance(title: str, remarks: Sequence[str], body: str) -> str:
    """Return an utterance under its title."""
    from unitone.eval import examples

    return examples.utterance(title, remarks, Html(f"<div>{body}</div>"))
