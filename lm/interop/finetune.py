"""Start from a model of ours: its weights, and its row for every token that is still there.

The corpus is another one, the tokenizer the same, since units and subwords mean what they meant.
Tasks, languages, genders and speakers may come and go; their tokens are matched by name.
"""

from pathlib import Path

from unitone import files, model_dir
from unitone.errors import ConfigError
from unitone.lm import families, family
from unitone.lm.data.fields import CodesOfModel
from unitone.lm.data.vocabulary import Vocabulary
from unitone.lm.interop.pretrained import Pretrained
from unitone.tokenizers.passport import require_same
from unitone.train import checkpoint


def is_ours(directory: Path) -> bool:
    """Tell whether it is a model directory of `unitone.lm.family`, or a run's folder."""
    config = model_dir.resolve(directory) / model_dir.CONFIG
    return config.is_file() and "unitone" in files.read_json(config)


def read(
    directory: Path, vocabulary: Vocabulary, *, codes: CodesOfModel | None
) -> tuple[Pretrained, dict[int, int]]:
    """Return the model, and for tokens of ``vocabulary`` their rows in its tables.

    Raises:
        ConfigError: its family, its tokenizer, or the codec of its codes, is another one.
        CheckpointError: the directory is incomplete or damaged.
    """
    name = families.of_directory(directory)
    if name != families.DEFAULT:
        raise ConfigError(
            f"--init {directory}: a model of the family {name!r} is no start for this"
        )
    loaded = family.load(directory, device="cpu")
    if loaded.vocabulary.passport != vocabulary.passport:
        raise ConfigError(
            f"--init {directory}: its units and text are of another tokenizer than the shards'; "
            f"encode them with `python -m tokenizers.encode --tokenizer {loaded.folder}/tokenizer`"
        )
    if codes is not None and loaded.codes is not None:
        require_same(loaded.codes.codec, codes.codec, what="the codes of the shards")
    start = Pretrained(
        directory=directory,
        config=loaded.model.config,
        weights={name: tensor.float() for name, tensor in checkpoint.weights(loaded.model).items()},
        specials={},
    )
    return start, rows(loaded.vocabulary, vocabulary)


def rows(old: Vocabulary, new: Vocabulary) -> dict[int, int]:
    """Return token of ``new`` → token of ``old``, where both have it."""
    found: dict[int, int] = {}
    for before in old:
        block = next((block for block in new if block.name == before.name), None)
        if block is None:
            continue
        if before.labels:
            numbers = {label: number for number, label in enumerate(before.labels)}
            pairs = [
                (n, numbers[label]) for n, label in enumerate(block.labels) if label in numbers
            ]
        else:
            pairs = [(n, n) for n in range(min(block.size, before.size))]
        found |= {block.start + mine: before.start + theirs for mine, theirs in pairs}
    return found
