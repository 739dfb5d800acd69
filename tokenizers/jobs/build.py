"""The work of ``tokenizers.build``."""

import json
import logging
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int32

from unitone import __version__, devices, files
from unitone import config as configs
from unitone.corpus.corpus import entries_of, manifest_hash
from unitone.corpus.draw import Draw
from unitone.corpus.reading import ReadingConfig
from unitone.corpus.utterance import Utterance
from unitone.errors import ConfigError
from unitone.logs import RunLog
from unitone.report import figures
from unitone.resume import require_unchanged
from unitone.tokenizers import passport
from unitone.tokenizers.build import RECORDED, BuildConfig
from unitone.tokenizers.encoder import local_path
from unitone.tokenizers.extract import Extractor
from unitone.tokenizers.kmeans import kmeans, sampling
from unitone.tokenizers.kmeans.centroids import read_centroids
from unitone.tokenizers.kmeans.sampling import Sample
from unitone.tokenizers.passport import FramesPassport, KMeansPassport, Passport, SubwordsPassport
from unitone.tokenizers.quality.quality import UtteranceUnits, measure
from unitone.tokenizers.quality.report import write_report
from unitone.tokenizers.quality.statistics_pass import CollectedUnits, collect_units
from unitone.tokenizers.text.subwords import UnitSubwords
from unitone.tokenizers.text.text import TextTokenizer, train_text
from unitone.tokenizers.tokenizer import BUILD, CENTROIDS, encoder_passport

logger = logging.getLogger(__name__)

UNITS_MODEL = "units.model"


def build(config: BuildConfig) -> None:
    """Build the tokenizer, or what of it is missing."""
    sha256 = manifest_hash(config.reading.manifest, config.reading.split)
    with files.locked(config.out):
        extractor = config.extractor.open()  # before anything is written: options may be wrong
        record = _record(config, sha256, extractor)
        if (config.out / passport.FILE).is_file() and not (config.out / BUILD).is_file():
            raise ConfigError(f"--out {config.out} holds other artifacts; choose another --out")
        files.require_own(config.out, BUILD)
        if _is_finished(config.out, record):
            logger.info("%s is finished already; nothing to do", config.out)
            return
        figures.import_ahead()
        log = RunLog(config.out / "log.jsonl")
        drawn = _drawn(config, extractor)
        files.write_json(config.out / BUILD, record)
        log.write("start", command=sys.argv)
        _build(config, drawn, extractor, sha256, log)
        log.write("end")


def _drawn(config: BuildConfig, extractor: Extractor) -> Draw:
    """Draw the utterances; refuse a k they can't fill, before hours are spent."""
    started = time.perf_counter()
    drawn = config.reading.draw(config.sample_seconds(extractor.frame_rate), seed=config.seed)
    if not drawn.seconds:  # not known, or nothing can be read, which sampling explains
        return drawn
    frames = round(drawn.seconds * extractor.frame_rate)
    if config.centroids is None and frames < config.k:
        raise ConfigError(
            f"--k {config.k} needs at least {config.k} frames, "
            f"the {'corpus' if drawn.whole else 'speech drawn'} has about {frames}; "
            f"lower --k or {'add recordings' if drawn.whole else 'raise --sample-hours'}"
        )
    logger.info(
        "%d of %d utterances drawn, %.2f h, in %.1f s",
        *(len(drawn.utterances), drawn.num_utterances, drawn.seconds / 3600),
        time.perf_counter() - started,
    )
    return drawn


def _texts(reading: ReadingConfig) -> Iterator[str]:
    """Yield the texts of the whole corpus: reading them costs little beside encoding speech."""
    for entry in entries_of(reading.manifest):
        if isinstance(entry, Utterance) and reading.split in (None, entry.split) and entry.text:
            yield entry.text


def _build(
    config: BuildConfig, first: Draw, extractor: Extractor, sha256: str, log: RunLog
) -> None:
    batch_seconds = config.extractor.batch_seconds(config.reading.batch_seconds)
    # first: what is wrong with the texts shows before hours are spent
    text = train_text(config.text, _texts(config.reading), size=config.text_subwords)
    text.save(config.out)
    known = sampling.Settings(
        reading=config.reading,
        seconds=config.sample_seconds(extractor.frame_rate),
        extractor=config.extractor,
        dim=extractor.encoder.dim,
        capacity=config.capacity,
        seed=config.seed,
        batch_seconds=batch_seconds,
        engine=config.engine,
        identity=_sampling_identity(config, sha256, extractor),
    )
    work = config.out / ".build"
    sample = sampling.load_or_draw(
        known, extractor, first, work=work, skipped=config.out / "skipped.jsonl"
    )
    log.write("sampled", wall=sample.wall_seconds, **sample.summary())
    centroids, fitted = _centroids(config, sample, extractor, work, sampled=known.identity)
    log.write("fitted", **fitted)
    penalty = float(f"{config.duration_penalty * fitted['inertia']:.6g}")
    found = collect_units(
        sample.draw.utterances,
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
    files.write_readme(config.out, _readme(made, sample))
    made.save(config.out)  # last: its presence says that everything else is there
    sampling.forget(work)
    logger.info("tokenizer in %s; open %s", config.out, config.out / "report.html")


def _sampling_identity(config: BuildConfig, sha256: str, extractor: Extractor) -> str:
    return json.dumps([config.sampling_identity, sha256, extractor.encoder.weight_hash])


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


def _record(config: BuildConfig, sha256: str, extractor: Extractor) -> dict[str, Any]:
    encoder, centroids = local_path(config.extractor.ssl), config.centroids
    return {
        "options": config.identity,
        "manifest": str(config.reading.manifest),
        "manifest_sha256": sha256,
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


def _readme(made: Passport, sample: Sample) -> str:
    drawn = sample.draw
    subwords = "none" if made.unit_pieces is None else str(made.unit_pieces.size)
    return (
        "# Tokeniser\n\n"
        f"{made.encoder.name}, layer {made.encoder.layer}, k = {made.kmeans.k}, "
        f"{made.frames.frame_rate:g} frames a second, unit subwords: {subwords}, "
        f"text: {made.text.kind}.\n\n"
        f"Learnt from {sample.seconds / 3600:.3f} hours ({len(drawn.utterances)} of "
        f"{drawn.num_utterances} utterances; "
        f"{sample.num_skipped} entries skipped, `skipped.jsonl` says why) "
        "by `python -m tokenizers.build`; options and versions: `build.json`; quality: "
        "`report.html`.\n\n"
        "Encode with `python -m tokenizers.encode --tokenizer THIS --manifest M --out OUT`.\n"
    )
