"""The three commands end to end, in processes of their own, and what they say to bad input."""

import contextlib
import filecmp
import importlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from unitone.tokenizers.kmeans.units import expand
from unitone.tokenizers.shards import TokenShards

Speech = Callable[..., np.ndarray]
Line = dict[str, object]

ROOT = Path(__file__).resolve().parents[2]


def run(module: str, *arguments: object, expect: int = 0) -> str:
    """Call a command's ``main``; return what it wrote. Checked types and shapes come for free."""
    main = importlib.import_module(f"unitone.{module}").main
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as leaving:  # how tyro ends a usage error
            status = leaving.code
    assert status == expect, said.getvalue()[-3000:]
    return said.getvalue()


def run_process(module: str, *arguments: object, expect: int = 0, **options: Any) -> str:
    """Run ``python -m module`` from the checkout; return what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        **options,
    )
    assert done.returncode == expect, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    said: str = done.stderr + done.stdout
    return said


def build(manifest: Path, out: Path, *more: object, expect: int = 0) -> str:
    return run(
        "tokenizers.build",
        *("--manifest", manifest, "--ssl", "mfcc", "--k", 8, "--out", out, *more),
        expect=expect,
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Path:
    """Forty short recordings; returns the manifest."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = []
    for index in range(40):
        soundfile.write(folder / f"{index}.flac", speech(0.4 + 0.05 * index, index), 16_000)
        record: Line = {"id": f"u{index}", "audio": f"{index}.flac", "text": f"SENTENCE {index}"}
        lines.append(json.dumps(record))
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    out = tmp_path_factory.mktemp("tokenizer") / "mfcc"
    build(corpus, out)
    return out


def same_tokens(one: Path, other: Path) -> bool:
    def names_in(folder: Path) -> list[Path]:
        paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        return sorted(path for path in paths if path.name != "log.jsonl")

    names = names_in(one)
    assert names == names_in(other)
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


def test_the_commands_run_from_a_checkout(corpus: Path, tmp_path: Path) -> None:
    base = ("--manifest", corpus, "--ssl", "mfcc")
    run_process("tokenizers.build", *base, "--k", 8, "--out", tmp_path / "t")
    tokenizer = ("--tokenizer", tmp_path / "t", "--manifest", corpus)
    message = run_process("tokenizers.encode", *tokenizer, "--out", tmp_path / "o")
    assert "40 utterances" in message
    assert "x real time" in message


def test_build_writes_a_whole_tokenizer(tokenizer: Path) -> None:
    names = {path.name for path in tokenizer.iterdir()}
    assert {
        "passport.json",
        "kmeans.safetensors",
        "units.model",
        "report.json",
        "report.html",
        "build.json",
        "README.md",
        "skipped.jsonl",
    } <= names
    assert ".build" not in names
    report = json.loads((tokenizer / "report.json").read_text())
    assert report["run"]["corpus_hours"] > 0


def test_build_is_repeatable_and_does_nothing_twice(
    tokenizer: Path, corpus: Path, tmp_path: Path
) -> None:
    build(corpus, tmp_path / "again", "--workers", 1)
    for name in ("passport.json", "kmeans.safetensors", "units.model"):
        assert filecmp.cmp(tokenizer / name, tmp_path / "again" / name, shallow=False), name

    assert "nothing to do" in build(corpus, tmp_path / "again")
    message = build(corpus, tmp_path / "again", "--seed", 5, expect=2)
    assert "seed = 0, now it is 5" in message


def test_encode_gives_the_nearest_centroid_of_every_frame(
    tokenizer: Path, corpus: Path, tmp_path: Path
) -> None:
    run(
        "tokenizers.encode",
        *("--tokenizer", tokenizer, "--manifest", corpus, "--out", tmp_path / "tokens"),
        *("--format", "fairseq", "espnet", "jsonl"),
    )
    run(
        "tokenizers.features",
        *("--ssl", "mfcc", "--manifest", corpus, "--out", tmp_path / "features"),
    )
    from unitone.tokenizers.kmeans import kmeans

    centroids = kmeans.load(tokenizer / "kmeans.safetensors")
    for row in TokenShards(tmp_path / "tokens").rows():
        features = np.load(tmp_path / "features" / f"{row['id']}.npy").astype(np.float64)
        distances = ((features[:, None] - centroids[None].astype(np.float64)) ** 2).sum(-1)
        units = expand(np.array(row["units"], np.int32), np.array(row["durations"], np.int32))
        assert np.array_equal(units, distances.argmin(1))
    assert (tmp_path / "tokens" / "fairseq" / "all.km").is_file()


@pytest.mark.parametrize("workers", [1, 3])
def test_shards_are_the_same_for_any_number_of_workers(
    tokenizer: Path, corpus: Path, tmp_path: Path, workers: int
) -> None:
    base = ("--tokenizer", tokenizer, "--manifest", corpus, "--shard-size", 7)
    run("tokenizers.encode", *base, "--out", tmp_path / "two")
    run("tokenizers.encode", *base, "--out", tmp_path / "other", "--workers", workers)

    assert same_tokens(tmp_path / "two", tmp_path / "other")


def kill_when(command: list[str], ready: Callable[[], bool]) -> None:
    """Start ``command``, kill -9 it as soon as ``ready``; fail if it ends before."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not ready() and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_encode_killed_and_run_again_writes_the_same_bytes(
    tokenizer: Path, corpus: Path, tmp_path: Path, speech: Speech
) -> None:
    # long enough to be caught in the middle: every line of the corpus many times over
    lines = [json.loads(line) for line in corpus.read_text().splitlines()]
    many = [
        json.dumps({**line, "id": f"{line['id']}-{n}", "audio": str(corpus.parent / line["audio"])})
        for n in range(8)
        for line in lines
    ]
    manifest = tmp_path / "many.jsonl"
    manifest.write_text("\n".join(many))
    base = ["--tokenizer", tokenizer, "--manifest", manifest, "--shard-size", 60]
    run("tokenizers.encode", *base, "--out", tmp_path / "whole")

    out = tmp_path / "killed"
    command = [sys.executable, "-m", "tokenizers.encode", *map(str, base), "--out", str(out)]
    kill_when(command, lambda: (out / "part-00000.parquet").exists())
    journal = out / ".journal" / "part-00003.jsonl"
    kill_when(command, lambda: journal.exists() and journal.stat().st_size > 0)
    message = run(*command[2:])

    assert "were there already" in message
    assert same_tokens(tmp_path / "whole", out)


def test_build_killed_and_run_again_ends_in_the_same_tokenizer(
    tokenizer: Path, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    arguments = ["--manifest", corpus, "--ssl", "mfcc", "--k", 8, "--out", out]
    command = [sys.executable, "-m", "tokenizers.build", *map(str, arguments)]
    kill_when(command, lambda: (out / ".build" / "sample.safetensors").exists())
    assert not (out / "passport.json").exists()
    run(*command[2:])

    for name in ("passport.json", "kmeans.safetensors", "units.model"):
        assert filecmp.cmp(tokenizer / name, out / name, shallow=False), name


def test_a_bad_utterance_among_good_ones_is_listed(
    tokenizer: Path, corpus: Path, tmp_path: Path, speech: Speech
) -> None:
    soundfile.write(tmp_path / "good 96k.wav", np.stack([speech(3.0)] * 2, 1), 96_000)
    soundfile.write(tmp_path / "eight.wav", speech(1.0), 8_000, subtype="PCM_U8")
    soundfile.write(tmp_path / "zero.wav", np.zeros(9_000), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.full(9_000, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", speech(0.005), 16_000)
    (tmp_path / "corrupt.flac").write_bytes(b"fLaC" + bytes(range(256)) * 9)
    (tmp_path / "empty.wav").write_bytes(b"")
    names = ["good 96k", "eight", "zero", "nan", "short", "corrupt", "empty", "missing"]
    lines = [
        json.dumps({"id": f"ä/{n}", "audio": f"{n}.flac" if n == "corrupt" else f"{n}.wav"})
        for n in names
    ]
    lines.insert(3, "no JSON here")
    lines.append(lines[0])
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(lines), encoding="utf-8")
    base = ("--tokenizer", tokenizer, "--manifest", manifest)

    message = run("tokenizers.encode", *base, "--out", tmp_path / "out")

    assert "2 utterances" in message
    assert "8 skipped" in message
    assert [row["id"] for row in TokenShards(tmp_path / "out").rows()] == ["ä/good 96k", "ä/eight"]
    skipped = (tmp_path / "out" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    reasons = {json.loads(line)["line"]: json.loads(line)["reason"] for line in skipped}
    assert "every sample is zero" in reasons[3]
    assert "not JSON" in reasons[4]
    assert "not finite" in reasons[5]
    assert "too short" in reasons[6]
    assert "corrupt.flac" in reasons[7]
    assert "empty.wav" in reasons[8]
    assert "no such file" in reasons[9]
    assert "duplicate id" in reasons[10]

    strict = run("tokenizers.encode", *base, "--out", tmp_path / "s", "--strict", expect=1)
    assert "--strict" in strict

    run("tokenizers.features", "--ssl", "mfcc", "--manifest", manifest, "--out", tmp_path / "f")
    index = [json.loads(x) for x in (tmp_path / "f" / "features.jsonl").read_text().splitlines()]
    assert [item["id"] for item in index] == ["ä/good 96k", "ä/eight"]
    assert all((tmp_path / "f" / item["file"]).is_file() for item in index)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--ssl", "mfcc", "--k", "100000"], 2, "--k must be 2..65534, got 100000"),
        (["--ssl", "mfcc", "--k", "1"], 2, "--k must be 2..65534, got 1"),
        (["--ssl", "mfcc", "--k", "60000"], 2, "lower --k"),
        (["--ssl", "mfcc", "--k", "8", "--layer", "3"], 2, "mfcc has no layers"),
        (["--ssl", "nothing-like-this", "--layer", "3", "--k", "8"], 2, "nothing-like-this"),
        (["--ssl", "mfcc", "--k", "8", "--split", "dev"], 2, "--split dev"),
        (
            ["--ssl", "mfcc", "--k", "8", "--unit-subwords", "5"],
            2,
            "--unit-subwords must be more than k",
        ),
        (["--ssl", "mfcc", "--k", "eight"], 2, "--k"),
        (["--k", "8", "--switch-penalty", "2"], 2, "is called --duration-penalty now"),
        (["--k", "8", "--pieces=20"], 2, "--pieces is called --unit-subwords now"),
    ],
)
def test_options_out_of_range_are_usage_errors(
    corpus: Path, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    said = run(
        "tokenizers.build",
        *("--manifest", corpus, "--out", tmp_path / "out", *arguments),
        expect=status,
    )
    assert message in " ".join(said.split())


def test_a_missing_manifest_and_tokenizer_are_usage_errors(
    tokenizer: Path, corpus: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out")
    assert "no such file" in build(tmp_path / "none.jsonl", tmp_path / "t", expect=2)
    run("tokenizers.encode", "--tokenizer", tmp_path, "--manifest", corpus, *out, expect=1)
    missing = ("--tokenizer", tmp_path / "none", "--manifest", corpus)
    assert "no such directory" in run("tokenizers.encode", *missing, *out, expect=2)


def test_a_full_disk_is_said_and_loses_nothing(
    tokenizer: Path, corpus: Path, tmp_path: Path
) -> None:
    base = ("--tokenizer", tokenizer, "--manifest", corpus, "--shard-size", 4)

    def no_room() -> None:  # files can't grow past 3 kB: what a full disk does to a writer
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))

    message = run_process(
        "tokenizers.encode", *base, "--out", tmp_path / "out", expect=1, preexec_fn=no_room
    )
    assert "error:" in message
    assert "run the same command again" in message

    run("tokenizers.encode", *base, "--out", tmp_path / "out")
    run("tokenizers.encode", *base, "--out", tmp_path / "whole")
    assert same_tokens(tmp_path / "whole", tmp_path / "out")


def test_two_writers_of_one_folder_exclude_each_other(
    tokenizer: Path, corpus: Path, tmp_path: Path
) -> None:
    import fcntl

    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        base = ("--tokenizer", tokenizer, "--manifest", corpus, "--out", tmp_path)
        assert "another process" in run("tokenizers.encode", *base, expect=2)
    finally:
        os.close(handle)


def test_a_changed_centroid_file_is_refused(tokenizer: Path, corpus: Path, tmp_path: Path) -> None:
    import shutil

    from unitone.tokenizers.kmeans import kmeans

    shutil.copytree(tokenizer, tmp_path / "t")
    centroids = kmeans.load(tmp_path / "t" / "kmeans.safetensors")
    kmeans.save(tmp_path / "t" / "kmeans.safetensors", centroids + np.float32(1))
    base = ("--tokenizer", tmp_path / "t", "--manifest", corpus, "--out", tmp_path / "o")

    assert "not what the passport names" in run("tokenizers.encode", *base, expect=1)


def test_a_kill_behind_the_last_part_does_no_harm(
    tokenizer: Path, corpus: Path, tmp_path: Path
) -> None:
    base = ("--tokenizer", tokenizer, "--manifest", corpus, "--out", tmp_path / "out")
    run("tokenizers.encode", *base)
    index = (tmp_path / "out" / "tokens.json").read_bytes()
    (tmp_path / "out" / "tokens.json").unlink()
    (tmp_path / "out" / ".journal").mkdir()
    (tmp_path / "out" / ".journal" / "part-00000.jsonl").write_text('{"index": 0, "rea')
    (tmp_path / "out" / ".part-00000.parquet.123.unitone.tmp").write_bytes(b"half")

    run("tokenizers.encode", *base)

    assert (tmp_path / "out" / "tokens.json").read_bytes() == index
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("stage", ["build", "encode"])
def test_recordings_that_come_back_are_tried_again(
    tokenizer: Path, corpus: Path, tmp_path: Path, stage: str
) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(corpus.read_text())  # beside no recordings
    options = ("--ssl", "mfcc", "--k", 8) if stage == "build" else ("--tokenizer", tokenizer)
    arguments = (*options, "--manifest", manifest, "--out", tmp_path / "out")

    assert "no such file" in run(f"tokenizers.{stage}", *arguments, expect=1)
    for recording in corpus.parent.glob("*.flac"):
        (tmp_path / recording.name).symlink_to(recording)
    run(f"tokenizers.{stage}", *arguments)


def test_folders_of_other_stages_are_left_alone(
    tokenizer: Path, corpus: Path, tmp_path: Path
) -> None:
    encode = ("--tokenizer", tokenizer, "--manifest", corpus)
    run("tokenizers.encode", *encode, "--out", tmp_path / "tokens")

    assert "tokenizer directory" in run("tokenizers.encode", *encode, "--out", tokenizer, expect=2)
    assert "other artifacts" in build(corpus, tmp_path / "tokens", expect=2)
    features = ("--ssl", "mfcc", "--manifest", corpus, "--out", tokenizer)
    assert "other artifacts" in run("tokenizers.features", *features, expect=2)


def test_a_failed_option_does_not_lock_the_folder(corpus: Path, tmp_path: Path) -> None:
    build(corpus, tmp_path / "out", "--sample-frames", 10, "--text", "sentencepiece", expect=2)
    arguments = ("--manifest", corpus, "--ssl", "mfcc", "--out", tmp_path / "out")
    assert "lower --k" in run("tokenizers.build", *arguments, "--k", 60_000, expect=2)
    run("tokenizers.build", *arguments, "--k", 8)


def test_what_no_reader_expects_is_skipped(tokenizer: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "x.raw").write_bytes(bytes(1000))
    good = str(corpus.parent / "5.flac")
    lines = [
        json.dumps({"id": "good", "audio": good}),
        json.dumps({"id": "raw", "audio": "x.raw"}),
        json.dumps({"id": "long", "audio": "a" * 300}),
        json.dumps({"id": "text", "audio": "a.wav", "text": "\ud800"}),
        json.dumps(
            {"id": "far", "audio": str(corpus.parent / "5.flac"), "start": 0.1, "duration": 9}
        ),
        "[" * 100_000,
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    base = ("--tokenizer", tokenizer, "--manifest", tmp_path / "m.jsonl")

    run("tokenizers.encode", *base, "--out", tmp_path / "out")

    skipped = (tmp_path / "out" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["line"] for line in skipped] == [2, 3, 4, 5, 6]
    strict = run("tokenizers.encode", *base, "--out", tmp_path / "out", "--strict", expect=1)
    assert "--strict" in strict


def test_options_of_encode_that_cannot_work(tokenizer: Path, corpus: Path, tmp_path: Path) -> None:
    base = ("--tokenizer", tokenizer, "--manifest", corpus, "--out", tmp_path / "out")
    formats = ("--format", "jsonl", "--format", "espnet")
    assert "given twice" in run("tokenizers.encode", *base, *formats, expect=2)
    assert "--threads" in run("tokenizers.encode", *base, "--threads", 0, expect=2)
    (tmp_path / "file").write_text("")
    blocked = (*base[:-1], tmp_path / "file" / "out")
    assert "a file is in the way" in run("tokenizers.encode", *blocked, expect=2)


@pytest.mark.slow
def test_ten_hours_go_through_in_bounded_memory(tokenizer: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    block = (0.1 * rng.standard_normal(16_000 * 60)).astype(np.float32)
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(600):
            file.write(block)
    (tmp_path / "m.jsonl").write_text(json.dumps({"id": "long", "audio": "long.flac"}))
    script = (
        "import resource, sys; from unitone.tokenizers import encode; "
        "status = encode.main(sys.argv[1:]); "
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    arguments = ["--tokenizer", str(tokenizer), "--manifest", str(tmp_path / "m.jsonl")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (row,) = TokenShards(tmp_path / "out").rows()
    assert row["num_samples"] == 600 * 60 * 16_000
    assert sum(row["durations"]) == (row["num_samples"] - 400) // 160 + 1
    assert int(done.stdout.split("peak ")[1]) < 2_000_000  # kB
