import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unitone.errors import CheckpointError, ConfigError
from unitone.tokenizers.text.subwords import MAX_K, UnitSubwords

K = 12
UNSEEN = (5, 11)


def phrases(*, seed: int = 0, count: int = 60) -> Iterator[np.ndarray]:
    """Sequences over a few recurring motifs; two of the units never occur."""
    rng = np.random.default_rng(seed)
    motifs = [np.array(motif) for motif in ((0, 1, 2), (3, 4), (6, 7, 8, 9), (10,), (2, 3))]
    for _ in range(count):
        yield np.concatenate([motifs[i] for i in rng.integers(0, len(motifs), size=12)])


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> UnitSubwords:
    out = tmp_path_factory.mktemp("pieces") / "units.model"
    return UnitSubwords.train(phrases(), k=K, num_subwords=24, out=out)


@given(units=arrays(np.int64, st.integers(0, 60), elements=st.integers(0, K - 1)))
def test_decode_undoes_encode_for_any_units(pieces: UnitSubwords, units: np.ndarray) -> None:
    encoded = pieces.encode(units)

    np.testing.assert_array_equal(pieces.decode(encoded), units)
    assert encoded.dtype == np.int32
    assert encoded.size <= units.size
    assert ((encoded >= 0) & (encoded < pieces.num_subwords)).all()


def test_every_unit_has_a_piece_even_if_training_never_saw_it(pieces: UnitSubwords) -> None:
    assert pieces.k == K
    for unit in (*UNSEEN, 0):
        encoded = pieces.encode(np.array([unit, unit]))
        assert pieces.decode(encoded).tolist() == [unit, unit]


@given(ids=arrays(np.int32, st.integers(0, 20), elements=st.integers(0, 23)))
def test_every_piece_stands_for_units(pieces: UnitSubwords, ids: np.ndarray) -> None:
    assert pieces.num_subwords == 24
    parts = [pieces.decode(ids[i : i + 1]) for i in range(ids.size)]
    np.testing.assert_array_equal(
        pieces.decode(ids), np.concatenate(parts) if parts else np.zeros(0)
    )
    assert all(part.size >= 1 for part in parts)


def test_recurring_units_become_shorter(pieces: UnitSubwords) -> None:
    units = next(phrases(seed=1))
    assert pieces.encode(units).size < 0.6 * units.size


def test_training_is_repeatable_and_the_hash_is_that_of_the_file(
    pieces: UnitSubwords, tmp_path: Path
) -> None:
    again = UnitSubwords.train(phrases(), k=K, num_subwords=24, out=tmp_path / "units.model")
    loaded = UnitSubwords.load(tmp_path / "units.model")
    other = UnitSubwords.train(phrases(seed=3), k=K, num_subwords=24, out=tmp_path / "other.model")

    assert again.hash == loaded.hash == pieces.hash != other.hash


def test_survives_pickling(pieces: UnitSubwords) -> None:
    units = next(phrases())
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(pieces)).encode(units), pieces.encode(units)
    )


def test_long_recordings_are_not_dropped_from_training(tmp_path: Path) -> None:
    """SentencePiece alone ignores a sentence of more than 4192 bytes, 1048 units."""
    whole = np.concatenate(list(phrases(count=200)))
    assert whole.size > 3000
    pieces = UnitSubwords.train([whole], k=K, num_subwords=24, out=tmp_path / "units.model")
    assert pieces.encode(whole).size < 0.6 * whole.size


def test_more_units_than_allowed_are_sampled_by_the_seed(tmp_path: Path) -> None:
    def train(seed: int) -> str:
        return UnitSubwords.train(
            phrases(), k=K, num_subwords=20, out=tmp_path / "m", seed=seed, max_units=600
        ).hash

    assert train(0) == train(0) != train(1)


def test_the_largest_k_fits_the_private_plane(tmp_path: Path) -> None:
    units = np.array([0, MAX_K - 1, MAX_K - 1, 7] * 9)
    pieces = UnitSubwords.train([units] * 3, k=MAX_K, num_subwords=MAX_K + 1, out=tmp_path / "m")
    assert pieces.k == MAX_K
    np.testing.assert_array_equal(pieces.decode(pieces.encode(units)), units)


def test_impossible_requests_are_refused_with_the_cure(tmp_path: Path) -> None:
    out = tmp_path / "units.model"
    with pytest.raises(ConfigError, match="must be more unit subwords than the 12 units; 12 were"):
        UnitSubwords.train(phrases(), k=K, num_subwords=K, out=out)
    with pytest.raises(ConfigError, match=r"k must be 1\.\.65534"):
        UnitSubwords.train(phrases(), k=MAX_K + 1, num_subwords=MAX_K + 9, out=out)
    with pytest.raises(ConfigError, match=r"sequence 0: unit 12 at position 1 is not in 0\.\.11"):
        UnitSubwords.train([np.array([0, 12])], k=K, num_subwords=24, out=out)
    with pytest.raises(ConfigError, match="every sequence is empty"):
        UnitSubwords.train([np.zeros(0, np.int32)], k=K, num_subwords=24, out=out)
    with pytest.raises(ConfigError, match=r"hold only 12 unit subwords.* use the units themselves"):
        UnitSubwords.train([np.array([1])], k=K, num_subwords=24, out=out)
    assert not out.exists()


def test_too_few_data_name_the_size_that_works(tmp_path: Path) -> None:
    out = tmp_path / "units.model"
    with pytest.raises(ConfigError, match=r"5000 were asked for.* ask for at most \d+") as caught:
        UnitSubwords.train(phrases(), k=K, num_subwords=5000, out=out)
    assert not out.exists()
    most = int(str(caught.value).rsplit(" ", 1)[1])
    assert UnitSubwords.train(phrases(), k=K, num_subwords=most, out=out).num_subwords == most


def test_fewer_pieces_are_accepted_on_request(tmp_path: Path) -> None:
    out = tmp_path / "units.model"
    fewer = UnitSubwords.train(phrases(), k=K, num_subwords=5000, out=out, allow_fewer=True)
    none = UnitSubwords.train([np.array([1])], k=K, num_subwords=24, out=out, allow_fewer=True)

    assert K < fewer.num_subwords < 5000
    assert none.num_subwords == UnitSubwords.load(out).num_subwords == K
    assert none.encode(np.array([11, 0])).size == 2


def test_values_out_of_range_are_named(pieces: UnitSubwords) -> None:
    with pytest.raises(ValueError, match=r"unit 12 at position 1 is not in 0\.\.11"):
        pieces.encode(np.array([3, K]))
    with pytest.raises(ValueError, match=r"unit piece -1 at position 0 is not in 0\.\.23"):
        pieces.decode(np.array([-1]))


def test_a_wrong_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.model: no unit subword model"):
        UnitSubwords.load(tmp_path / "absent.model")
    broken = tmp_path / "broken.model"
    broken.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match=r"broken\.model: not a SentencePiece model"):
        UnitSubwords.load(broken)
