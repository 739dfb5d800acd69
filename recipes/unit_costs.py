"""What units cost and what they know: encoders, layers, numbers of units, duration penalties.

    python -m recipes.unit_costs --manifest an4/manifest.jsonl --out exp/unit_costs

k-means sees no labels, so it may be measured on what it has learnt from. Where the manifest has no
phones, the text spread evenly over the utterance stands in for them: compare with the column "by
chance", where texts are shuffled between utterances. What a recognizer makes of the units is the
better measure, and takes a minute or two each: ``--wer-steps``. Writes ``costs.jsonl`` and
``costs.md``. Measured results: ``docs/results.md``.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from unitone import files, program
from unitone.config import command_line
from unitone.corpus.reading import ReadingConfig
from unitone.corpus.utterance import Skipped, Utterance
from unitone.errors import CorpusError
from unitone.recipes import recognition
from unitone.recipes.recognition import RecognitionConfig
from unitone.tokenizers.extract import Extractor, extract
from unitone.tokenizers.kmeans import kmeans
from unitone.tokenizers.kmeans.segments import units_of
from unitone.tokenizers.options import ExtractorConfig
from unitone.tokenizers.quality.quality import QualityReport, UtteranceUnits, measure

logger = logging.getLogger(__name__)

HEAD = (
    "| encoder | layer | k | penalty | tokens/s | bits/s | purity | PNMI | by chance | WER % |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
)


@dataclass(frozen=True, kw_only=True)
class UnitCostsConfig:
    manifest: Path
    out: Path
    """Folder for ``costs.jsonl`` and ``costs.md``."""
    encoders: tuple[str, ...] = ("mfcc", *(f"whisper-tiny.en:{layer}" for layer in (1, 2, 3, 4)))
    """Names as of ``tokenizers.build``, with the layer after a colon."""
    ks: tuple[int, ...] = (100, 500, 1000, 2000)
    """Numbers of units."""
    penalties: tuple[float, ...] = (0.0, 1.0, 2.0)
    """Duration penalties, as of ``tokenizers.build``."""
    learn: str = "train"
    """Split that the centroids are learnt from."""
    test: str = "train"
    """Split that is measured; of a small one, k units know much by chance."""
    wer_steps: int = 0
    """Steps of a small T2V2 that learns recognition from each kind of units; 0 learns none. It
    hears the recordings as they are, learns from split train, and is tested on split test."""
    seed: int = 0
    threads: int = 2
    """CPU threads."""


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """An utterance and its features."""

    utterance: Utterance
    num_samples: int
    features: Float32[np.ndarray, "T D"]


def run(config: UnitCostsConfig) -> None:
    """Measure every combination and write the table."""
    torch.set_num_threads(config.threads)
    config.out.mkdir(parents=True, exist_ok=True)
    rows = [row for encoder in config.encoders for row in _encoder(config, encoder)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    files.write_text(config.out / "costs.jsonl", text)
    files.write_text(config.out / "costs.md", "\n".join([HEAD, *map(_line, rows)]) + "\n")


def _encoder(config: UnitCostsConfig, encoder: str) -> Iterator[dict[str, Any]]:
    ssl, _, layer = encoder.partition(":")
    extractor = ExtractorConfig(
        ssl=ssl, layer=int(layer) if layer else None, threads=config.threads
    ).open()
    learn = _spoken(config, extractor, config.learn)
    test = learn if config.test == config.learn else _spoken(config, extractor, config.test)
    frames = np.concatenate([one.features for one in learn])
    for k in config.ks:
        fit = kmeans.KMeansConfig(k=k, seed=config.seed)
        found = kmeans.train(frames, fit, device=extractor.device)
        for penalty in config.penalties:
            report = _report(test, found, penalty, frame_rate=extractor.frame_rate)
            row = {"encoder": ssl, "layer": layer, "penalty": penalty, **_figures(report)}
            row |= _wer(config, ssl, layer=layer, k=k, penalty=penalty) if config.wer_steps else {}
            logger.info("%s", _line(row))
            yield row


def _wer(
    config: UnitCostsConfig, ssl: str, *, layer: str, k: int, penalty: float
) -> dict[str, Any]:
    """Learn recognition from the units; return the word error rate and its interval."""
    wanted = RecognitionConfig(
        manifest=config.manifest,
        out=config.out / "wer" / f"{ssl}-{layer}-{k}-{penalty:g}",
        ssl=ssl,
        layer=int(layer) if layer else None,
        k=k,
        duration_penalty=penalty,
        speeds=(),
        config="t2v2-tiny",
        steps=config.wer_steps,
        threads=config.threads,
        compile=False,
    )
    for step in recognition.steps(wanted, manifest=config.manifest):
        step.execute()
    found = files.read_json(wanted.out / "scores" / "wer.json")
    return {name: found[name] for name in ("wer", "wer_interval")}


def _report(
    spoken: Sequence[Spoken], found: kmeans.KMeansResult, penalty: float, *, frame_rate: float
) -> QualityReport:
    centroids = torch.from_numpy(found.centroids)
    price = penalty * found.inertia
    return measure(
        (
            UtteranceUnits(
                id=one.utterance.id,
                units=units_of(torch.from_numpy(one.features), centroids, duration_penalty=price),
                num_samples=one.num_samples,
                labels=one.utterance.labels or None,
                text=one.utterance.text,
            )
            for one in spoken
        ),
        k=len(found.centroids),
        frame_rate=frame_rate,
        inertia=None,
        num_subwords=None,
    )


def _figures(report: QualityReport) -> dict[str, Any]:
    """Return what the table shows; of the rates, those of deduplicated units."""
    labels = report.phones or report.characters
    if labels is None:
        raise CorpusError("the utterances have neither phones nor text")
    chance = report.characters_by_chance
    return {
        "k": report.k,
        "tokens_per_second": report.streams[1].tokens_per_second,
        "bits_per_second": report.streams[1].bits_per_second,
        "purity": labels.label_purity,
        "pnmi": labels.pnmi,
        "pnmi_by_chance": chance.pnmi if chance and not report.phones else 0.0,
    }


def _line(row: Mapping[str, Any]) -> str:
    return (
        f"| {row['encoder']} | {row['layer']} | {row['k']} | {row['penalty']:g} "
        f"| {row['tokens_per_second']:.1f} | {row['bits_per_second']:.0f} | {row['purity']:.3f} "
        f"| {row['pnmi']:.3f} | {row['pnmi_by_chance']:.3f} | {_rate(row)} |"
    )


def _rate(row: Mapping[str, Any]) -> str:
    if "wer" not in row:
        return ""
    low, high = (100 * row["wer_interval"][side] for side in ("low", "high"))
    return f"{100 * row['wer']:.1f} ({low:.1f} to {high:.1f})"


def _spoken(config: UnitCostsConfig, extractor: Extractor, split: str) -> list[Spoken]:
    corpus = ReadingConfig(manifest=config.manifest, split=split).corpus()
    items = extract(extractor, corpus.utterances, workers=2, batch_seconds=0.0)
    return [
        Spoken(
            utterance=item.utterance,
            num_samples=item.num_samples,
            features=item.whole().cpu().numpy(),
        )
        for item in items
        if not isinstance(item, Skipped)
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(UnitCostsConfig, argv, __doc__)
    return program.run(lambda: run(config))


if __name__ == "__main__":
    raise SystemExit(main())
