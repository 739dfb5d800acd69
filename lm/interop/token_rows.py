"""Which of our tokens a pretrained text model knows, and in which row of its tables.

Two tokens are the same if they spell the same bytes, whatever their tokenizers call them: ``▁the``
of SentencePiece, ``Ġthe`` of GPT-2's byte-level BPE and ``" the"`` are one, and so are ``<0x0A>``,
``Ċ`` and a line break.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import sentencepiece

from unitone import files
from unitone.errors import CheckpointError
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.interop.pretrained import Pretrained
from unitone.tokenizers.passport import Passport
from unitone.tokenizers.text.text import MODEL_NAME, load_text

Style = Literal["sentencepiece", "byte-level", "plain"]
"""How a tokenizer spells: spaces as ``▁``, every byte as a letter, or as it is."""

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def shared_rows(
    pretrained: Pretrained, vocabulary: Vocabulary, *, tokenizer: Path
) -> dict[int, int]:
    """Return our token → its row in the pretrained tables, for `initialize`.

    If ``text.model`` is the very ``tokenizer.model`` of the pretrained directory, its numbers are
    the rows, in order. Otherwise text tokens are matched by what they spell. ``<bos>``, ``<eos>``
    and ``<pad>`` are theirs, where they have them.

    Args:
        pretrained: the text model; its directory holds ``tokenizer.json``, ``tokenizer.model`` or
            ``vocab.json``.
        vocabulary: ours.
        tokenizer: directory of our tokenizer.

    Raises:
        CheckpointError: a tokenizer is missing or damaged.
    """
    directory, size = pretrained.directory, pretrained.config.vocab_size
    specials = vocabulary.block("special").labels
    rows = {
        vocabulary.id(name): row
        for name, row in pretrained.specials.items()
        if name.strip("<>") in specials and 0 <= row < size
    }
    block = vocabulary.block("text")
    theirs, ours = directory / "tokenizer.model", tokenizer / MODEL_NAME
    if theirs.is_file() and ours.is_file() and theirs.read_bytes() == ours.read_bytes():
        return rows | {block.start + number: number for number in range(min(block.size, size))}
    row_of = {spelling: row for row, spelling in _theirs(directory).items() if row < size}
    spelled = _ours(tokenizer) if block.size else {}
    found = {number: row_of[spelling] for number, spelling in spelled.items() if spelling in row_of}
    return rows | {block.start + number: row for number, row in found.items()}


def _ours(tokenizer: Path) -> dict[int, bytes]:
    kind = Passport.load(tokenizer).text.kind
    load_text(kind, tokenizer)  # says what is wrong with the file, if anything is
    if kind == "bytes":
        return {byte: bytes([byte]) for byte in range(256)}
    path = tokenizer / MODEL_NAME
    if kind == "characters":
        symbols = files.read_json(path)
        return _spellings(
            {symbol: number for number, symbol in enumerate(symbols) if number}, "plain"
        )
    return _spellings(_sentencepiece(path), "sentencepiece")


def _theirs(directory: Path) -> dict[int, bytes]:
    """Read the first form of the tokenizer that is there."""
    path = directory / "tokenizer.json"
    try:
        if path.is_file():
            return _fast(files.read_json(path, cure="fetch it again"))
        path = directory / "vocab.json"
        if path.is_file():
            return _spellings(files.read_json(path, cure="fetch it again"), "byte-level")
        path = directory / "tokenizer.model"
        if path.is_file():
            return _spellings(_sentencepiece(path), "sentencepiece")
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is no tokenizer that is known ({error!r})") from error
    raise CheckpointError(
        f"{directory} holds none of tokenizer.json, vocab.json and tokenizer.model, so which piece "
        "of text a row is for is unknown; fetch one of them"
    )


def _fast(values: Mapping[str, Any]) -> dict[int, bytes]:
    """Read Hugging Face's ``tokenizer.json``; special tokens spell nothing."""
    pieces = values["model"]["vocab"]
    if isinstance(pieces, list):  # a unigram model: [piece, score]
        pieces = {piece: number for number, (piece, _) in enumerate(pieces)}
    special = {token["content"] for token in values.get("added_tokens", ()) if token["special"]}
    kept = {piece: number for piece, number in pieces.items() if piece not in special}
    steps = json.dumps([values.get("pre_tokenizer"), values.get("decoder")])
    return _spellings(kept, "byte-level" if '"ByteLevel"' in steps else "sentencepiece")


def _sentencepiece(path: Path) -> dict[str, int]:
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    numbers = range(int(model.vocab_size()))
    kept = (n for n in numbers if not model.is_unknown(n) and not model.is_control(n))
    return {str(model.id_to_piece(number)): number for number in kept}


def _spellings(pieces: Mapping[str, int], style: Style) -> dict[int, bytes]:
    """Return what each number spells, byte pieces first: ``A`` counts before ``<0x41>``."""
    letters = _letters()
    spelled: dict[int, bytes] = {}
    ordered = sorted(pieces, key=lambda piece: (not _BYTE.fullmatch(piece), pieces[piece]))
    for piece in ordered:
        byte = _BYTE.fullmatch(piece)
        if style == "byte-level":
            if all(letter in letters for letter in piece):
                spelled[pieces[piece]] = bytes(letters[letter] for letter in piece)
        elif byte and style == "sentencepiece":
            spelled[pieces[piece]] = bytes([int(byte[1], 16)])
        else:
            text = piece.replace("\u2581", " ") if style == "sentencepiece" else piece
            spelled[pieces[piece]] = text.encode()
    return spelled


def _letters() -> dict[str, int]:
    """Return the byte for each letter of GPT-2's alphabet.

    Printable bytes of Latin-1 are themselves; the others are, in order, the letters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + number): byte for number, byte in enumerate(others)}
