"""A journal keeps every whole record whatever happens to the process."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from unitone.resume import Journal


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
