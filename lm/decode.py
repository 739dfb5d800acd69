"""Generate for a corpus: ``python -m lm.decode --model M --task asr --tokens T --out H.jsonl``.

The corpus is token shards (``--tokens``), or a manifest (``--manifest``) whose recordings go
through the model's own tokenizer or codec. The hypotheses are JSON lines in the order of the
corpus: ``id``, ``task``, ``to``, ``text``, ``label``, ``units``, ``codes``, ``audio``, ``score``,
``truncated``, with ``--words`` also ``words``; beside them ``<out>.decoding.json`` says how they
were made, and ``<out>.skipped.jsonl`` which utterances could not be decoded and why. The job may be
killed at any moment; run again, it goes on, and the file is the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from unitone import program
from unitone.config import command_line, option_value
from unitone.lm import families
from unitone.lm.options import MAX_TOKENS, DecodingPrecision, SourceConfig

Decoding = TypeVar("Decoding")
"""The search settings of a model family, its ``DecodingConfig``."""
RENAMED = {"--voices": "--speaker-embeddings"}


@dataclass(frozen=True, kw_only=True)
class DecodeConfig(Generic[Decoding]):
    model: Path
    """Model directory, as training writes it."""
    task: str
    """A task of the model's table: asr, tts, st, mt, lid, gid, continue, …; or edit, of a T2V2 that
    synthesizes."""
    out: Path
    """File for the hypotheses, JSON lines."""
    source: SourceConfig
    to: tuple[str, ...] = ()
    """Languages to translate into (st, mt)."""
    prefix: int = 0
    """Tokens of the target, or frames of codes, that are given, as in speech continuation."""
    audio: Path | None = None
    """Folder for what the decoder makes of generated units or codes, WAV."""
    decoder: Path | None = None
    """Directory of a unit decoder, or of the codec of the codes; default: the model's own."""
    edits: Path | None = None
    """Of --task edit: JSON lines with the id of an utterance and the text that it shall have; its
    own text is the corpus'. Units outside what changes stay; ``span`` says which are new."""
    draft: Path | None = None
    """A T2V2 of the same tokenizer: it drafts, and a decoder-only --model keeps what its own greedy
    search writes. The output is that search's, sooner."""
    correct: Path | None = None
    """A T2V2 of the same tokenizer: of what a decoder-only --model has found (--beam), it takes the
    text that it finds likeliest too, and corrects what it is unsure of."""
    words: bool = False
    """Recognition: also ``words``, with times and confidences; of models that know."""
    decoding: Decoding
    batch_tokens: int = MAX_TOKENS
    """Positions that are in memory at a time: prompts and new tokens, padding included, of every
    beam, candidate and twin (--guidance). What is decoded doesn't depend on it."""
    precision: DecodingPrecision = "fp32"
    """fp32; bf16, which is faster where the processor has it; or int8, on a CPU: weights and, as
    they come, the rows they are multiplied with. The latter two round differently."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    seed: int = 0
    """Of what is drawn, with a temperature."""


def decode(config: DecodeConfig[Any]) -> None:
    """Write the hypotheses; do only what is missing."""
    from unitone.lm.jobs import decode as job

    job.decode(config)  # pyright: ignore[reportArgumentType]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    model = option_value(argv, "--model")

    def run() -> None:
        name = families.of_directory(Path(model)) if model else families.DEFAULT
        settings = families.module(name, "options").DecodingConfig
        kind: Any = DecodeConfig
        decode(command_line(kind[settings], argv, __doc__, renamed=RENAMED))

    return program.run(run)


if __name__ == "__main__":
    raise SystemExit(main())
