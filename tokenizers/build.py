"""A tokenizer from recordings: ``python -m tokenizers.build --layer 21 --k 2000 --manifest M …``.

One streaming pass draws a uniform sample of frames (never a file of features), k-means runs on the
sample, and a second pass over a few hours gives the units from which subwords are learnt and the
quality report is made. Killed at any moment and run again, it goes on from its last saved step and
ends in the same tokenizer.
"""

import json
import logging
import math
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, Int32

from unitone import __version__, devices, files, program
from unitone import config as configs
from unitone.config import command_line
from unitone.corpus.corpus import Corpus
from unitone.corpus.reading import ReadingConfig
from unitone.errors import ConfigError
from unitone.logs import RunLog
from unitone.resume import require_unchanged
from unitone.tokenizers import passport
from unitone.tokenizers.encoder import local_path
from unitone.tokenizers.engines import Engine
from unitone.tokenizers.extract import Extractor, ExtractorConfig
from unitone.tokenizers.kmeans import kmeans, sampling
from unitone.tokenizers.kmeans.centroids import read_centroids
from unitone.tokenizers.kmeans.sampling import Sample
from unitone.tokenizers.passport import FramesPassport, KMeansPassport, Passport, SubwordsPassport
from unitone.tokenizers.quality.quality import UtteranceUnits, measure
from unitone.tokenizers.quality.report import write_report
from unitone.tokenizers.quality.statistics_pass import CollectedUnits, collect_units
from unitone.tokenizers.text.subwords import UnitSubwords
from unitone.tokenizers.text.text import TextKind, TextTokenizer, train_text
from unitone.tokenizers.tokenizer import BUILD, CENTROIDS, encoder_passport

logger = logging.getLogger(__name__)

UNITS_MODEL = "units.model"
RECORDED = {
    "duration_penalty": "switch_penalty",
    "unit_subwords": "pieces",
    "text_subwords": "text_pieces",
    "statistics_hours": "survey_hours",
}
"""Options that ``build.json`` knows by the names they had first."""
RENAMED = {
    f"--{old}".replace("_", "-"): f"--{new}".replace("_", "-") for new, old in RECORDED.items()
}


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    out: Path
    """Directory for the tokenizer."""
    reading: ReadingConfig
    k: int = 2000
    """Number of units."""
    extractor: ExtractorConfig = field(default_factory=ExtractorConfig)
    sample_frames: int | None = None
    """Frames k-means learns from, drawn uniformly; default 256 k, at least 100,000."""
    init: Literal["k-means++", "random"] = "k-means++"
    redo: int = 1
    """Fits from different starts, of which the best is kept."""
    iterations: int = 20
    """Lloyd iterations at the most; they end earlier where they gain nothing."""
    centroids: Path | None = None
    """Take these instead of learning them: fairseq or ESPnet joblib, FAISS, .npy, .safetensors."""
    duration_penalty: float = 0.0
    """Price of a change of unit, times the mean squared distance of a frame to its centroid: fewer
    and longer runs (Kamper & van Niekerk 2021); 1 to 4 are usual, 0 is the nearest centroid."""
    deduplicate: bool = True
    """Store runs of one unit as the unit and its duration."""
    unit_subwords: int | None = None
    """Subwords over the units; 0 = none; default up to 2 k, as many as the data hold."""
    text: TextKind = "bytes"
    """How text becomes tokens."""
    text_subwords: int | None = None
    """Entries of the text model; sentencepiece only."""
    statistics_hours: float = 2.0
    """Speech, drawn at random, that subwords and the report are made from."""
    seed: int = 0
    engine: Engine = "local"
    """local: this process. ray: the actors of a Ray cluster (RAY_ADDRESS, or one made here)."""

    def __post_init__(self) -> None:
        if not 2 <= self.k <= 65_534:
            raise ConfigError(f"--k must be 2..65534, got {self.k}")
        if (
            self.unit_subwords is not None
            and self.unit_subwords != 0
            and self.unit_subwords <= self.k
        ):
            raise ConfigError(
                f"--unit-subwords must be more than k = {self.k}, or 0, got {self.unit_subwords}"
            )
        if self.capacity < self.k:
            raise ConfigError(f"--sample-frames {self.sample_frames} is less than k = {self.k}")
        if not 0 <= self.duration_penalty < math.inf:
            raise ConfigError(f"--duration-penalty must be 0 or more, got {self.duration_penalty}")
        if not self.statistics_hours > 0:
            raise ConfigError(
                f"--statistics-hours must be more than 0, got {self.statistics_hours}"
            )
        if self.centroids is not None and not self.centroids.is_file():
            raise ConfigError(f"--centroids {self.centroids}: no such file")
        if (self.text == "sentencepiece") != (self.text_subwords is not None):
            raise ConfigError("--text sentencepiece and --text-subwords N go together")

    @property
    def capacity(self) -> int:
        """Frames the sample holds at most."""
        return max(256 * self.k, 100_000) if self.sample_frames is None else self.sample_frames

    @property
    def sampling_identity(self) -> dict[str, Any]:
        """The options that decide which frames are sampled."""
        own = ("k", "init", "redo", "iterations", "centroids", "deduplicate", "pieces")
        later = (*own, "switch_penalty", "text", "text_pieces", "survey_hours", "sample_frames")
        kept = {name: value for name, value in self.identity.items() if name not in later}
        return {**kept, "capacity": self.capacity}

    @property
    def identity(self) -> dict[str, Any]:
        """The options that decide what comes out, as against those that say how to get there."""
        options = configs.to_dict(self)
        reading, extractor = options.pop("reading"), options.pop("extractor")
        del options["out"], options["engine"], extractor["device"], extractor["threads"]
        frames = extractor.pop("frames")
        known: dict[str, Any] = {**extractor, **frames, "split": reading["split"], **options}
        return {RECORDED.get(name, name): value for name, value in known.items()}


def build(config: BuildConfig) -> None:
    """Build the tokenizer, or what of it is missing."""
    corpus = config.reading.corpus()
    with files.locked(config.out):
        extractor = config.extractor.open()  # before anything is written: options may be wrong
        record = _record(config, corpus, extractor)
        if (config.out / passport.FILE).is_file() and not (config.out / BUILD).is_file():
            raise ConfigError(f"--out {config.out} holds other artifacts; choose another --out")
        files.require_own(config.out, BUILD)
        if _is_finished(config.out, record):
            logger.info("%s is finished already; nothing to do", config.out)
            return
        _check_size(config, corpus, extractor)
        files.write_json(config.out / BUILD, record)
        log = RunLog(config.out / "log.jsonl")
        log.write("start", command=sys.argv)
        _build(config, corpus, extractor, log)
        log.write("end")


def _check_size(config: BuildConfig, corpus: Corpus, extractor: Extractor) -> None:
    """Refuse a k that the corpus can't fill, before hours are spent, where its length is stated."""
    seconds = corpus.stated_seconds(range(len(corpus.entries)))
    if config.centroids is None and seconds is not None:
        frames = round(seconds * extractor.frame_rate)
        if frames < config.k:
            raise ConfigError(
                f"--k {config.k} needs at least {config.k} frames, the corpus has about {frames}; "
                "lower --k or add recordings"
            )


def _build(config: BuildConfig, corpus: Corpus, extractor: Extractor, log: RunLog) -> None:
    batch_seconds = config.extractor.batch_seconds(config.reading.batch_seconds)
    text = train_text(  # first: what is wrong with the texts shows before hours are spent
        config.text,
        (u.text for u in corpus.utterances if u.text is not None),
        size=config.text_subwords,
    )
    text.save(config.out)
    known = sampling.Settings(
        corpus=corpus,
        extractor=config.extractor,
        dim=extractor.encoder.dim,
        capacity=config.capacity,
        seed=config.seed,
        workers=config.reading.workers,
        batch_seconds=batch_seconds,
        engine=config.engine,
        strict=config.reading.strict,
        identity=_sampling_identity(config, corpus, extractor),
    )
    work = config.out / ".build"
    sample = sampling.load_or_draw(
        known, extractor, work=work, skipped=config.out / "skipped.jsonl"
    )
    log.write("sampled", frames=sample.seen, seconds=sample.seconds, wall=sample.wall_seconds)
    centroids, fitted = _centroids(config, sample, extractor, work, sampled=known.identity)
    log.write("fitted", **fitted)
    penalty = float(f"{config.duration_penalty * fitted['inertia']:.6g}")
    found = collect_units(
        corpus,
        extractor,
        centroids,
        duration_penalty=penalty,
        seconds=3600 * config.statistics_hours,
        seed=config.seed,
        workers=config.reading.workers,
        batch_seconds=batch_seconds,
        journal=work / f"survey-{_journal_key(centroids, extractor)}-{penalty:g}.jsonl",
    )
    subwords = _subwords(config, [item.sequence(deduplicated=config.deduplicate) for item in found])
    clusters = KMeansPassport(
        k=config.k, centroid_hash=kmeans.centroid_hash(centroids), switch_penalty=penalty
    )
    made = _passport(config, extractor, clusters, subwords, text)
    write_report(
        measure(
            _measured(found, subwords, deduplicated=config.deduplicate),
            k=config.k,
            frame_rate=extractor.frame_rate,
            inertia=float(fitted["inertia"]),
            num_subwords=None if subwords is None else subwords.num_subwords,
        ),
        config.out,
        passport=configs.to_dict(made),
        run={**_environment(), **fitted, **sample.summary(), "device": str(extractor.device)},
    )
    files.write_readme(config.out, _readme(made, corpus, sample))
    made.save(config.out)  # last: its presence says that everything else is there
    sampling.forget(work)
    logger.info("tokenizer in %s; open %s", config.out, config.out / "report.html")


def _sampling_identity(config: BuildConfig, corpus: Corpus, extractor: Extractor) -> str:
    return json.dumps([config.sampling_identity, corpus.sha256, extractor.encoder.weight_hash])


def _journal_key(centroids: Float32[np.ndarray, "K D"], extractor: Extractor) -> str:
    """Name what decides the units: a killed build may go on with others."""
    return f"{kmeans.centroid_hash(centroids)[:16]}-{extractor.encoder.weight_hash[:16]}"


def _centroids(
    config: BuildConfig, sample: Sample, extractor: Extractor, work: Path, *, sampled: str
) -> tuple[Float32[np.ndarray, "K D"], dict[str, Any]]:
    """Return the centroids, learnt, imported or kept by a killed build, and the figures on them."""
    path, record = config.out / CENTROIDS, work / "fitted.json"
    made_with: dict[str, Any] = {"options": config.identity, "sampled": sampled}
    if config.centroids is not None:
        made_with["centroids_sha256"] = files.sha256(config.centroids)
    if path.is_file() and record.is_file():
        kept = files.read_json(record)
        if {name: kept.get(name) for name in made_with} == made_with:
            return kmeans.load(path), kept["figures"]
    if config.centroids is not None:
        centroids = _imported(config, config.centroids, extractor)
        inertia = kmeans.inertia(sample.frames, centroids)
        fitted: dict[str, Any] = {"inertia": inertia, "imported": str(config.centroids)}
    else:
        centroids, fitted = _trained(config, sample)
    kmeans.save(path, centroids)
    files.write_json(record, {**made_with, "figures": fitted})
    return centroids, fitted


def _imported(config: BuildConfig, path: Path, extractor: Extractor) -> Float32[np.ndarray, "K D"]:
    centroids = read_centroids(path)
    expected = (config.k, extractor.encoder.dim)
    if centroids.shape != expected:
        raise ConfigError(
            f"--centroids {path}: {centroids.shape[0]} centroids of width {centroids.shape[1]}; "
            f"--k {config.k} and {extractor.encoder.name} want {expected[0]} of width {expected[1]}"
        )
    return centroids


def _trained(
    config: BuildConfig, sample: Sample
) -> tuple[Float32[np.ndarray, "K D"], dict[str, Any]]:
    started = time.perf_counter()
    result = kmeans.train(
        sample.frames,
        kmeans.KMeansConfig(
            k=config.k,
            init=config.init,
            redo=config.redo,
            seed=config.seed,
            iterations=config.iterations,
        ),
        device=devices.resolve(config.extractor.device),
    )
    return result.centroids, {
        "inertia": result.inertia,
        "kmeans_backend": result.backend,
        "kmeans_seconds": round(time.perf_counter() - started, 2),
        "kmeans_repaired": result.repaired,
        "kmeans_history": list(result.history),
        "sample_frames": len(sample.frames),
    }


def _subwords(config: BuildConfig, sequences: list[Int32[np.ndarray, "_"]]) -> UnitSubwords | None:
    """Learn subwords of the units: as many as asked for, by default up to 2 k or none."""
    if config.unit_subwords == 0:
        return None
    subwords = UnitSubwords.train(
        sequences,
        k=config.k,
        num_subwords=config.unit_subwords or 2 * config.k,
        out=config.out / UNITS_MODEL,
        seed=config.seed,
        allow_fewer=config.unit_subwords is None,
    )
    if subwords.num_subwords > config.k:
        return subwords
    logger.info("the data hold no unit subwords worth having; units stay as they are")
    (config.out / UNITS_MODEL).unlink()
    return None


def _measured(
    found: list[CollectedUnits], subwords: UnitSubwords | None, *, deduplicated: bool
) -> Iterator[UtteranceUnits]:
    for item in found:
        sequence = item.sequence(deduplicated=deduplicated)
        yield UtteranceUnits(
            id=item.utterance.id,
            units=item.units,
            num_samples=item.num_samples,
            labels=item.utterance.labels or None,
            text=item.utterance.text,
            subwords=None if subwords is None else len(subwords.encode(sequence)),
        )


def _passport(
    config: BuildConfig,
    extractor: Extractor,
    clusters: KMeansPassport,
    subwords: UnitSubwords | None,
    text: TextTokenizer,
) -> Passport:
    return Passport(
        encoder=encoder_passport(extractor, config.extractor.precision),
        frames=FramesPassport(
            frame_policy=config.extractor.frames.frame_policy,
            window=config.extractor.frames.window,
            context=config.extractor.frames.context,
            frame_rate=extractor.frame_rate,
        ),
        kmeans=clusters,
        deduplicate=config.deduplicate,
        unit_pieces=None
        if subwords is None
        else SubwordsPassport(
            kind="sentencepiece", size=subwords.num_subwords, model_hash=subwords.hash
        ),
        text=SubwordsPassport(kind=text.kind, size=text.size, model_hash=text.hash),
    )


def _record(config: BuildConfig, corpus: Corpus, extractor: Extractor) -> dict[str, Any]:
    encoder, centroids = local_path(config.extractor.ssl), config.centroids
    return {
        "options": config.identity,
        "manifest": str(config.reading.manifest),
        "manifest_sha256": corpus.sha256,
        **({"encoder": str(encoder)} if encoder is not None else {}),
        "encoder_weights": extractor.encoder.weight_hash,
        **({"centroids_sha256": files.sha256(centroids)} if centroids is not None else {}),
        "versions": _environment(),
    }


def _is_finished(out: Path, record: dict[str, Any]) -> bool:
    """Tell whether ``out`` holds this very tokenizer; refuse one of other options."""
    path = out / BUILD
    if not path.is_file() or not (out / passport.FILE).is_file():
        return False  # what an unfinished build left is looked at by each step
    before, now = _settings(files.read_json(path)), _settings(record)
    # there was no penalty before there was this option, nor a hash of imported centroids
    older = {"duration_penalty": 0.0, "centroids_sha256": now.get("centroids_sha256")}
    before["encoder_weights"] = Passport.load(out).encoder.weight_hash
    require_unchanged(older | before, now, where=out)
    return True


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    """Return what decides a tokenizer, the options by the names they have now."""
    names = {recorded: name for name, recorded in RECORDED.items()}
    options: dict[str, Any] = record.get("options", {})
    found = {names.get(name, name): value for name, value in options.items()}
    found["manifest_sha256"] = record.get("manifest_sha256")
    others = ("centroids_sha256", "encoder_weights")
    return found | {name: record[name] for name in others if name in record}


def _environment() -> dict[str, str]:
    found = {
        "unitone": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    for package in ("numpy", "faiss-cpu", "sentencepiece", "pyarrow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def _readme(made: Passport, corpus: Corpus, sample: Sample) -> str:
    subwords = "none" if made.unit_pieces is None else str(made.unit_pieces.size)
    return (
        "# Tokeniser\n\n"
        f"{made.encoder.name}, layer {made.encoder.layer}, k = {made.kmeans.k}, "
        f"{made.frames.frame_rate:g} frames a second, unit subwords: {subwords}, "
        f"text: {made.text.kind}.\n\n"
        f"Learnt from {sample.seconds / 3600:.3f} hours ({len(corpus.utterances)} utterances; "
        f"{sample.num_skipped} entries skipped, `skipped.jsonl` says why) "
        "by `python -m tokenizers.build`; options and versions: `build.json`; quality: "
        "`report.html`.\n\n"
        "Encode with `python -m tokenizers.encode --tokenizer THIS --manifest M --out OUT`.\n"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""

    def work() -> None:
        build(command_line(BuildConfig, argv, __doc__, renamed=RENAMED))

    return program.run(work)


if __name__ == "__main__":
    raise SystemExit(main())
