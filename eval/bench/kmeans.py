"""k-means training against scikit-learn's MiniBatchKMeans at fairseq's settings.

    python -m unitone.eval.bench.kmeans                  # 1 M frames x 768, k = 2000
    python -m unitone.eval.bench.kmeans --data mfcc --frames 100000 --k 500

Each side runs in a process of its own, with the same frames, seed and number of threads. Timed is
the training alone; the peak of memory is that of the whole process, frames included; the inertia is
the mean squared distance of all frames to their nearest centroids, computed alike for both sides.
With ``--through-reservoir`` our side also draws its frames by streaming them through ``Reservoir``.

The frames are synthetic: ``ssl`` is made like the output of a pre-LN SSL encoder (a Zipf mixture of
phones in context, speaker offsets, a continuum of low rank, heavy tails, a few dimensions of large
scale), ``mfcc`` like 39 cepstra (overlapping full-covariance clouds, falling scales).
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from unitone import program, seeding
from unitone.config import command_line
from unitone.errors import ConfigError

Side = Literal["both", "ours", "sklearn"]
_BLOCK = 16_384
"""Frames that are made at a time."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    data: Literal["ssl", "mfcc"] = "ssl"
    frames: int = 1_000_000
    k: int = 2000
    threads: int = 2
    seed: int = 0
    sklearn_inits: int = 20
    """fairseq's n_init is 20; fewer are kinder to scikit-learn's time."""
    through_reservoir: bool = False
    """Stream our side's frames through a reservoir of that capacity."""
    side: Side = "both"
    """``ours`` and ``sklearn`` run in this process and print one line of JSON."""

    @property
    def dim(self) -> int:
        """Width of the frames."""
        return 768 if self.data == "ssl" else 39


@dataclass(frozen=True, kw_only=True)
class Score:
    name: str
    seconds: float
    """Wall time of the training."""
    cpu_seconds: float
    """Processor time of all threads; it shows when other programs took processors away."""
    inertia: float
    peak_gb: float
    """1e9 bytes, resident."""


def main(argv: list[str] | None = None) -> int:
    """Run one side, or both and print the table; the status is 0 whatever the ratio."""
    return program.run(lambda: _bench(command_line(BenchConfig, argv, __doc__)))


def _bench(config: BenchConfig) -> None:
    if config.side != "both":
        sys.stdout.write(json.dumps(asdict(_measure(config))) + "\n")
        return
    ours, theirs = (_in_process(config, side) for side in ("ours", "sklearn"))
    sys.stdout.write(_table(config, ours, theirs))


def _in_process(config: BenchConfig, side: str) -> Score:
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in asdict(config).items()
        if name not in ("side", "through_reservoir")
    ]
    if config.through_reservoir:
        options.append("--through-reservoir")
    threads = str(config.threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, "-m", "unitone.eval.bench.kmeans", *options, f"--side={side}"],
        env={**os.environ, **dict.fromkeys(names, threads)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return Score(**json.loads(done.stdout.splitlines()[-1]))


def _measure(config: BenchConfig) -> Score:
    frames = _sampled(config) if _streams(config) else _collected(config)
    train = _train_ours if config.side == "ours" else _train_sklearn
    started, cpu_started = time.perf_counter(), time.process_time()
    name, centroids = train(frames, config)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    from unitone.tokenizers.kmeans import (
        kmeans,  # after the peak: torch is not to be charged to sklearn
    )

    return Score(
        name=name,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        inertia=kmeans.inertia(frames, centroids),
        peak_gb=peak * (1 if sys.platform == "darwin" else 1024) / 1e9,
    )


def _streams(config: BenchConfig) -> bool:
    return config.through_reservoir and config.side == "ours"


def _train_ours(
    frames: Float32[np.ndarray, "T D"], config: BenchConfig
) -> tuple[str, Float32[np.ndarray, "K D"]]:
    import torch

    from unitone.tokenizers.kmeans import kmeans

    torch.set_num_threads(config.threads)
    options = kmeans.KMeansConfig(k=config.k, seed=config.seed)
    result = kmeans.train(frames, options, device=torch.device("cpu"))
    return f"unitone ({result.backend})", result.centroids


def _train_sklearn(
    frames: Float32[np.ndarray, "T D"], config: BenchConfig
) -> tuple[str, Float32[np.ndarray, "K D"]]:
    """Train as fairseq's simple_kmeans does with the options of its recipe."""
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError as error:
        raise ConfigError("scikit-learn is missing: pip install 'unitone[dev]'") from error
    options: dict[str, Any] = {
        "n_clusters": config.k,
        "init": "k-means++",
        "max_iter": 100,
        "batch_size": 10_000,
        "tol": 0.0,
        "max_no_improvement": 100,
        "init_size": None,
        "n_init": config.sklearn_inits,
        "reassignment_ratio": 0.0,
        "compute_labels": False,
        "random_state": config.seed,
        "verbose": 0,
    }
    model = MiniBatchKMeans(**options)
    model.fit(frames)
    name = f"scikit-learn (n_init {config.sklearn_inits}, {model.n_steps_} steps)"
    return name, np.asarray(model.cluster_centers_, dtype=np.float32)


def _collected(config: BenchConfig) -> Float32[np.ndarray, "T D"]:
    frames = np.empty((config.frames, config.dim), dtype=np.float32)
    for start, block in _blocks(config):
        frames[start : start + len(block)] = block
    return frames


def _sampled(config: BenchConfig) -> Float32[np.ndarray, "T D"]:
    from unitone.tokenizers.kmeans.reservoir import Reservoir

    reservoir = Reservoir(capacity=config.frames, dim=config.dim, seed=config.seed)
    for start, block in _blocks(config):
        reservoir.add(str(start), block)
    return reservoir.sample()


def _blocks(config: BenchConfig) -> Iterator[tuple[int, Float32[np.ndarray, "b D"]]]:
    """Yield the frames in blocks with the index of the first; block b does not depend on others."""
    make = _SslFrames(config.seed) if config.data == "ssl" else _MfccFrames(config.seed)
    for number, start in enumerate(range(0, config.frames, _BLOCK)):
        rng = seeding.stream(config.seed, "bench frames", number)
        yield start, make(min(_BLOCK, config.frames - start), rng)


class _SslFrames:
    """Frames like a pre-LN encoder's: about half of the variance is what k = 2000 can explain."""

    phones, contexts, speakers, rank, dim = 80, 24, 400, 96, 768

    def __init__(self, seed: int) -> None:
        rng = seeding.stream(seed, "bench ssl")
        kinds = self.phones * self.contexts
        spectrum = 3 * np.arange(1, self.rank + 1, dtype=np.float32)[:, None] ** -0.5
        self.basis = spectrum * _normal(rng, self.rank, self.dim) / np.sqrt(np.float32(self.rank))
        self.centers = np.repeat(_normal(rng, self.phones, self.dim), self.contexts, axis=0)
        self.centers += 0.5 * _normal(rng, kinds, self.dim) + _normal(rng, 1, self.dim)
        self.voices = 0.35 * _normal(rng, self.speakers, self.dim)
        self.scale = np.exp(0.5 * _normal(rng, self.dim))
        self.scale[:4] *= 8
        weights = rng.permutation(np.arange(1, kinds + 1) ** -0.7)
        self.weights = weights / weights.sum()

    def __call__(self, count: int, rng: np.random.Generator) -> Float32[np.ndarray, "b D"]:
        frames: Float32[np.ndarray, "b D"] = _normal(rng, count, self.rank) @ self.basis
        frames += 0.5 * _normal(rng, count, self.dim)
        frames *= np.sqrt(5 / rng.chisquare(5, size=(count, 1))).astype(np.float32)  # Student's t
        frames += self.centers[rng.choice(len(self.centers), count, p=self.weights)]
        frames += self.voices[rng.integers(self.speakers, size=count)]
        frames *= self.scale
        return frames


class _MfccFrames:
    """Frames like cepstra with deltas: overlapping Gaussians, scales that fall with the order."""

    clouds, dim = 300, 39

    def __init__(self, seed: int) -> None:
        rng = seeding.stream(seed, "bench mfcc")
        orders = np.tile(np.arange(1, 14, dtype=np.float32), 3)
        self.scale = np.repeat(np.asarray([20, 3, 1], dtype=np.float32), 13) * orders**-0.5
        self.centers = 1.2 * _normal(rng, self.clouds, self.dim)
        self.mixers = 0.12 * _normal(rng, self.clouds, self.dim, self.dim)
        self.mixers += 0.5 * np.eye(self.dim, dtype=np.float32)
        self.weights = rng.dirichlet(np.ones(self.clouds))

    def __call__(self, count: int, rng: np.random.Generator) -> Float32[np.ndarray, "b D"]:
        clouds = rng.choice(self.clouds, count, p=self.weights)
        frames = _normal(rng, count, self.dim)
        for cloud in np.unique(clouds):
            inside = clouds == cloud
            frames[inside] = frames[inside] @ self.mixers[cloud] + self.centers[cloud]
        return frames * self.scale


def _normal(rng: np.random.Generator, *shape: int) -> Float32[np.ndarray, "..."]:
    drawn: Float32[np.ndarray, ...] = rng.standard_normal(shape, dtype=np.float32)
    return drawn


def _table(config: BenchConfig, ours: Score, theirs: Score) -> str:
    lines = [
        f"{config.data}: {config.frames} frames x {config.dim}, k = {config.k}, "
        f"{config.threads} threads",
        "",
        "| | seconds | CPU seconds | inertia | peak GB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for score in (ours, theirs):
        lines.append(
            f"| {score.name} | {score.seconds:.1f} | {score.cpu_seconds:.1f} "
            f"| {score.inertia:.5g} | {score.peak_gb:.2f} |"
        )
    lines.append(
        f"| ratio, ours better above 1 | {theirs.seconds / ours.seconds:.1f} "
        f"| {theirs.cpu_seconds / ours.cpu_seconds:.1f} | {theirs.inertia / ours.inertia:.3f} "
        f"| {theirs.peak_gb / ours.peak_gb:.2f} |"
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
