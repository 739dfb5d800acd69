"""A passport comes back as it was, and two that differ refuse each other by field."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from unitone.errors import CheckpointError, ConfigError
from unitone.tokenizers.passport import (
    EncoderPassport,
    FramesPassport,
    KMeansPassport,
    Passport,
    SubwordsPassport,
    differences,
    require_same,
)


def passport(**changes: object) -> Passport:
    made = Passport(
        encoder=EncoderPassport(
            name="mfcc",
            weight_hash="ab" * 32,
            layer=0,
            dim=39,
            normalize_waveform=False,
            precision="fp32",
        ),
        frames=FramesPassport(frame_policy="exact", window=60.0, context=5.0, frame_rate=100.0),
        kmeans=KMeansPassport(k=8, centroid_hash="cd" * 32),
        deduplicate=True,
        unit_pieces=None,
        text=SubwordsPassport(kind="bytes", size=256, model_hash="ef" * 32),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_it_survives_the_disk(tmp_path: Path) -> None:
    made = passport(unit_pieces=SubwordsPassport(kind="sentencepiece", size=20, model_hash="1"))
    made.save(tmp_path)

    assert Passport.load(tmp_path) == made
    assert Passport.load(tmp_path).hash == made.hash


def test_a_passport_from_before_the_switch_penalty_keeps_its_hash(tmp_path: Path) -> None:
    passport().save(tmp_path)
    values = json.loads((tmp_path / "passport.json").read_text())
    del values["kmeans"]["switch_penalty"]
    (tmp_path / "passport.json").write_text(json.dumps(values))
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))

    assert Passport.load(tmp_path).hash == hashlib.sha256(text.encode()).hexdigest()
    dear = KMeansPassport(k=8, centroid_hash="cd" * 32, switch_penalty=1.0)
    assert passport(kmeans=dear).hash != passport().hash


def test_every_field_counts() -> None:
    kmeans = KMeansPassport(k=9, centroid_hash="cd" * 32)
    other = passport(kmeans=kmeans, deduplicate=False)

    assert other.hash != passport().hash
    assert [line.split(" ")[0] for line in differences(passport(), other)] == [
        "kmeans.k",
        "deduplicate",
    ]
    with pytest.raises(
        ConfigError, match=r"tokens: the passports differ in kmeans\.k \(8 against 9"
    ):
        require_same(passport(), other, what="tokens")
    require_same(passport(), passport(), what="itself")


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a finished tokenizer"):
        Passport.load(tmp_path)
    passport().save(tmp_path)
    path = tmp_path / "passport.json"
    good = json.loads(path.read_text())

    path.write_text(path.read_text()[:40])
    with pytest.raises(CheckpointError, match="damaged"):
        Passport.load(tmp_path)
    path.write_text(json.dumps(good | {"mystery": 1}))
    with pytest.raises(ConfigError, match="unknown field 'mystery'"):
        Passport.load(tmp_path)
    path.write_text(json.dumps(good | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        Passport.load(tmp_path)
    del good["kmeans"]["k"]
    path.write_text(json.dumps(good))
    with pytest.raises(ConfigError, match="kmeans: field 'k' is missing"):
        Passport.load(tmp_path)
