"""What a tokenizer loses by learning from drawn utterances, and what planning the draw costs.

    python -m unitone.eval.bench.sampling --manifests an4/manifest.jsonl arctic/manifest.jsonl

With ``--manifests``: some utterances are held out; of the rest, k-means learns from a uniform
sample of all frames, and from as many frames of the utterances that ``tokenizers.build`` draws, a
fifth of the frames of each. Printed is the mean squared distance of the frames held out to their
centroids, as a ratio to that of the uniform sample; the goal is 1.01 at the most.

Then, of manifests of ``--plan-hours`` hours, in lines that refer to the same recordings: how long
it takes to draw from each, how much memory, and how much would be encoded.
"""

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from unitone import program, seeding
from unitone.config import command_line
from unitone.corpus.corpus import read_corpus
from unitone.corpus.draw import draw
from unitone.corpus.utterance import Utterance
from unitone.tokenizers.build import SHARE
from unitone.tokenizers.extract import Features, extract
from unitone.tokenizers.kmeans import kmeans
from unitone.tokenizers.kmeans.reservoir import Reservoir, even_priorities
from unitone.tokenizers.options import ExtractorConfig

GOAL = 1.01
Frames = Float32[np.ndarray, "_ D"]


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    manifests: tuple[Path, ...] = ()
    """Corpora, taken together; durations stated."""
    ssl: str = "mfcc"
    layer: int | None = None
    k: tuple[int, ...] = (200, 500)
    hours: tuple[float, ...] = (0.35, 0.7)
    """Speech that is drawn, one row each."""
    held_out: float = 0.2
    """Share of the utterances that nothing learns from."""
    seeds: int = 4
    plan_hours: tuple[float, ...] = (100.0, 10_000.0)
    """Sizes of the manifests that are planned; 10 s a line."""
    sample_hours: float = 14.2
    """What is drawn from them: the default at k = 2000 and 50 frames a second."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Inertia of the frames held out."""

    uniform: float
    drawn: float
    frames: int
    """That each side learnt from."""
    utterances: int
    """That were drawn."""


def compare(
    features: Mapping[str, Frames],
    held_out: Frames,
    drawn: Sequence[str],
    *,
    k: int,
    seed: int,
) -> Comparison:
    """Train on a uniform sample of all ``features``, and on as many frames of those ``drawn``."""
    capacity = round(SHARE * sum(len(features[name]) for name in drawn))
    inertias = []
    for even, names in ((False, [*features]), (True, [*drawn])):
        width = held_out.shape[1]
        reservoir = Reservoir(capacity=capacity, dim=width, seed=seed)
        for name in names:
            own = even_priorities(seed, name, len(features[name])) if even else None
            reservoir.add(name, features[name], priorities=own)
        config = kmeans.KMeansConfig(k=k, seed=seed)
        made = kmeans.train(reservoir.sample(), config, device=torch.device("cpu"))
        inertias.append(kmeans.inertia(held_out, made.centroids))
    return Comparison(
        uniform=inertias[0], drawn=inertias[1], frames=capacity, utterances=len(drawn)
    )


def split_off(utterances: Sequence[Utterance], share: float) -> tuple[set[str], set[str]]:
    """Return the ids to learn from and those held out."""
    key = seeding.keys(0, "held out")
    out = {one.id for one in utterances if key(one.id) < share * 2**64}
    return {one.id for one in utterances} - out, out


def features_of(
    utterances: Sequence[Utterance], extractor: ExtractorConfig
) -> Iterator[tuple[str, Frames]]:
    """Yield id and features of each utterance that can be read."""
    for item in extract(extractor.open(), utterances, workers=2, batch_seconds=0.0):
        if isinstance(item, Features):
            yield item.utterance.id, item.whole().float().cpu().numpy()


def _inertia(config: BenchConfig) -> None:
    utterances = [one for path in config.manifests for one in read_corpus(path).utterances]
    features = dict(features_of(utterances, ExtractorConfig(ssl=config.ssl, layer=config.layer)))
    utterances = [one for one in utterances if one.id in features]
    pool, out = split_off(utterances, config.held_out)
    held_out = np.concatenate([features.pop(name) for name in sorted(out)])
    hours = sum(one.stated_duration or 0 for one in utterances if one.id in pool) / 3600
    print(f"{config.ssl}, {len(pool)} utterances, {hours:.2f} h; {len(held_out):,} frames held out")
    print("| k | hours drawn | utterances | frames a centroid | ratio, mean | largest | goal |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.jsonl"
        lines = (
            {"id": one.id, "audio": str(one.audio), "duration": one.stated_duration}
            for one in utterances
            if one.id in pool
        )
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        for k in config.k:
            for wanted in config.hours:
                made = [
                    compare(features, held_out, _drawn(manifest, wanted, seed), k=k, seed=seed)
                    for seed in range(config.seeds)
                ]
                print(_row(k, wanted, made), flush=True)


def _drawn(manifest: Path, hours: float, seed: int) -> list[str]:
    found = draw(manifest, split=None, seconds=3600 * hours, seed=seed, workers=2)
    return [one.id for one in found.utterances]


def _row(k: int, hours: float, made: Sequence[Comparison]) -> str:
    ratios = [one.drawn / one.uniform for one in made]
    return (
        f"| {k} | {hours:g} | {statistics.mean(one.utterances for one in made):.0f} "
        f"| {statistics.mean(one.frames for one in made) / k:.0f} "
        f"| {statistics.mean(ratios):.4f} | {max(ratios):.4f} | {GOAL} |"
    )


def many_lines(recordings: Sequence[Path], hours: float, *, seconds: float) -> Iterator[str]:
    """Yield a manifest of ``hours`` in lines of ``seconds``, which refer to the same recordings."""
    for number in range(round(3600 * hours / seconds)):
        yield json.dumps(
            {
                "id": f"{number % 9973:04d}-{number:08d}",
                "audio": str(recordings[number % len(recordings)]),
                "text": "what was said in a sentence of about this length, as people say them",
                "speaker": f"{number % 9973:04d}",
                "language": "en",
                "duration": seconds,
            }
        )


def _plan(config: BenchConfig) -> None:
    print("| hours | lines | seconds | µs a line | hours drawn | utterances | more memory, MB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.jsonl"
        for hours in config.plan_hours:
            with manifest.open("w", encoding="utf-8") as file:
                file.writelines(
                    f"{line}\n" for line in many_lines([Path("a")], hours, seconds=10.0)
                )
            before, started = _peak(), time.perf_counter()
            found = draw(
                manifest, split=None, seconds=3600 * config.sample_hours, seed=0, workers=2
            )
            took = time.perf_counter() - started
            assert found.seconds is not None
            print(
                f"| {hours:g} | {found.num_utterances:,} | {took:.1f} "
                f"| {1e6 * took / found.num_utterances:.1f} | {found.seconds / 3600:.2f} "
                f"| {len(found.utterances)} | {_peak() - before:.0f} |",
                flush=True,
            )


def _peak() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _bench(config: BenchConfig) -> None:
    if config.manifests:
        _inertia(config)
    _plan(config)


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for."""
    return program.run(lambda: _bench(command_line(BenchConfig, argv, __doc__)))


if __name__ == "__main__":
    sys.exit(main())
