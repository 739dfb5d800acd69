"""SentencePiece's unigram model (Kudo 2018, arXiv 1804.10959), as units and texts both learn it.

Nothing is normalized, and the result depends on the arguments alone.
"""

import io
from collections.abc import Iterator
from typing import Any

import sentencepiece

THREADS = 16
"""Fixed, not the machine's: partial sums of EM depend on it, and so would the model."""


def fit(sentences: Iterator[str], *, size: int, **options: Any) -> bytes:
    """Return a model of ``size`` subwords, ``<unk>`` among them with id 0.

    ``options`` are SentencePiece's own, beside those that are the same for units and texts.

    Raises:
        RuntimeError: SentencePiece can't learn it; says why.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences,
        model_writer=model,
        model_type="unigram",
        vocab_size=size,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        shuffle_input_sentence=False,
        num_threads=THREADS,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        minloglevel=2,
        **options,
    )
    return model.getvalue()
