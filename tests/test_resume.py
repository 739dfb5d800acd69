"""A journal keeps every whole record whatever happens; another job isn't gone on with."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitone.errors import ConfigError
from unitone.resume import Journal, require_unchanged


@given(texts=st.lists(st.text(), min_size=1, max_size=6), cut=st.integers(0, 400))
def test_a_cut_at_any_byte_loses_only_what_follows(texts: list[str], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j.jsonl"
        journal = Journal(path)
        for text in texts:
            journal.append({"text": text})
        journal.close()
        content = path.read_bytes()[:cut]
        path.write_bytes(content)
        kept = content.count(b"\n")

        again = Journal(path)
        assert again.records() == [{"text": text} for text in texts[:kept]]
        again.append({"text": "new"})
        again.close()
        assert again.records() == [{"text": text} for text in [*texts[:kept], "new"]]


def test_remove_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "deep" / "j.jsonl")
    journal.append({"a": 1})
    journal.remove()

    assert not journal.path.exists()
    assert journal.records() == []


def test_other_settings_are_refused_by_name_and_value(tmp_path: Path) -> None:
    before = {"train": {"lr": 0.1, "steps": 5}, "tasks": ["asr"], "more": 1}
    now = {"train": {"lr": 0.1, "steps": 9}, "tasks": ("asr",)}
    require_unchanged(before, now, where=tmp_path, may_differ=("steps",))
    with pytest.raises(ConfigError, match=r"begun with train\.steps = 5, now it is 9; choose"):
        require_unchanged(before, now, where=tmp_path)
    with pytest.raises(ConfigError, match=r"train\.steps = 5, now it is None"):
        require_unchanged(before, {"train": {"lr": 0.1}}, where=tmp_path)
    with pytest.raises(ConfigError, match=r"seed = None, now it is 1; delete it"):
        require_unchanged(before, {"seed": 1}, where=tmp_path, cure="delete it")
