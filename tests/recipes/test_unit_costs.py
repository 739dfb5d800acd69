"""The table of what units cost: its rows, and that its figures move as they must."""

import json
from pathlib import Path

from unitone.recipes import unit_costs


def test_more_units_tell_more_and_a_penalty_saves_bits(tiny_corpus: Path, tmp_path: Path) -> None:
    arguments = [
        *("--manifest", tiny_corpus / "manifest.jsonl", "--out", tmp_path, "--encoders", "mfcc"),
        *("--ks", 5, 50, "--penalties", 0, 2, "--test", "train", "--threads", 1),
    ]
    assert unit_costs.main([str(one) for one in arguments]) == 0
    rows = [json.loads(line) for line in (tmp_path / "costs.jsonl").read_text().splitlines()]
    assert [(row["k"], row["penalty"]) for row in rows] == [(5, 0), (5, 2), (50, 0), (50, 2)]
    for plain, penalized in (rows[:2], rows[2:]):
        assert penalized["bits_per_second"] < plain["bits_per_second"]
    assert rows[2]["pnmi"] > rows[0]["pnmi"]
    table = (tmp_path / "costs.md").read_text().splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert len(table) == len(rows) + 2


def test_without_text_or_phones_there_is_nothing_to_know(tiny_corpus: Path, tmp_path: Path) -> None:
    manifest = tiny_corpus / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    texts = [json.dumps({k: v for k, v in line.items() if k != "text"}) for line in lines]
    (tiny_corpus / "silent.jsonl").write_text("\n".join(texts))
    arguments = [
        *("--manifest", tiny_corpus / "silent.jsonl", "--out", tmp_path, "--encoders", "mfcc"),
        *("--ks", 5, "--test", "train", "--threads", 1),
    ]
    assert unit_costs.main([str(one) for one in arguments]) == 1
