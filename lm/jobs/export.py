"""The work of ``unitone export``."""

import logging

from torch import Tensor

from unitone import files, model_dir
from unitone.errors import ConfigError
from unitone.lm import families, family
from unitone.lm.decoder import weights
from unitone.lm.export import ExportConfig
from unitone.lm.family import LoadedModel
from unitone.lm.interop.llama import EXTRA
from unitone.lm.interop.opt import OptModel
from unitone.model_dir import CARD, CONFIG, WEIGHTS
from unitone.train import checkpoint

logger = logging.getLogger(__name__)

GENERATION = "generation_config.json"
"""Only an export has it, so it tells one from a model directory."""
README = """\
# {name}, in the {layout} layout

Exported from a Unitone model directory; `model_card.md` says what the model is.

```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("{name}")
```

## Token ids

There is no `tokenizer.json`: speech has no characters to make tokens of. An engine has to take ids
and do without a tokenizer; tested is Transformers. `vocabulary.json` lists
the blocks of ids, one after the other: a token's id is its block's `start` plus its number in the
block. Numbers of text come from the text model in `tokenizer/` (of the kind that `passport.json`
names: bytes, characters or SentencePiece), numbers of speech from the units of the same directory:

```python
from unitone.lm.data.vocabulary import Vocabulary
from unitone.tokenizers.text.text import load_text

vocabulary = Vocabulary.load("{name}")
text = load_text("{text}", "{name}/tokenizer")
ids = vocabulary.block("text").encode(text.encode("hello"))
```

The sequences of the tasks, fields of an utterance between braces, what is generated between square
brackets:

{templates}
{left_out}"""


def export(config: ExportConfig) -> None:
    """Write ``config.model`` in another format.

    Raises:
        ConfigError: there is no such format or model, or ``out`` is the model or holds other files.
        CheckpointError: the model is damaged.
    """
    if config.to != "hf":
        raise ConfigError(f"--to {config.to}: there is only hf, which Transformers loads")
    _check_out(config)
    loaded = family.load(config.model, device="cpu", precision=config.precision)
    if loaded.family != families.DEFAULT:
        raise ConfigError(f"--model {config.model}: only decoder-only models have this format")
    tensors = weights.to_tensors(loaded.model)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(EXTRA)}
    dropped = sorted({name.split(".")[2] for name in tensors.keys() - kept.keys()})
    if dropped:
        logger.warning(
            "the %s layout has no place for the projections of %s: they are left out, and tasks "
            "that read them don't work there",
            "OPT" if isinstance(loaded.model, OptModel) else "Llama",
            " and ".join(dropped),
        )
    if loaded.codes is not None and loaded.codes.pattern == "delay" and loaded.codes.levels > 1:
        logger.warning(
            "codes with a delay are several tokens a position, which Transformers' models don't "
            "take: tasks that read or generate codes don't work there"
        )
    _write(config, loaded, kept, dropped)
    logger.info("%s: %d tensors, %s", config.out, len(kept), config.precision)


def _check_out(config: ExportConfig) -> None:
    out = config.out
    if out.resolve() in (config.model.resolve(), model_dir.resolve(config.model).resolve()):
        raise ConfigError(f"--out {out} is the model itself; choose another")
    if out.is_dir() and not (out / GENERATION).is_file() and any(out.iterdir()):
        raise ConfigError(f"--out {out} holds other files than an earlier export; choose another")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: a file is in the way; choose another")


def _write(
    config: ExportConfig, loaded: LoadedModel, tensors: dict[str, Tensor], dropped: list[str]
) -> None:
    vocabulary = loaded.vocabulary
    described = weights.describe(loaded.model, vocabulary, dtype=family.DTYPES[config.precision])
    generation = {
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
        "pad_token_id": vocabulary.pad_id,
        "do_sample": False,
    }
    left_out = f"\nLeft out: the projections of {', '.join(dropped)}.\n" if dropped else ""
    readme = README.format(
        name=config.out.resolve().name,
        layout=described["model_type"],
        text="bytes" if loaded.passport is None else loaded.passport.text.kind,
        templates="\n".join(f"- {task.name}: `{task.template}`" for task in loaded.table),
        left_out=left_out,
    )
    with checkpoint.replacing_folder(config.out) as temporary:
        checkpoint.save_tensors(temporary / WEIGHTS, tensors)
        files.write_json(temporary / CONFIG, described)
        files.write_json(temporary / GENERATION, generation)
        vocabulary.save(temporary)
        if loaded.tokenizer is not None:
            family.copy_tokenizer(loaded.tokenizer, temporary / family.TOKENIZER)
        card = loaded.folder / CARD
        if card.is_file():
            files.write_text(temporary / "model_card.md", card.read_text(encoding="utf-8"))
        files.write_text(temporary / "README.md", readme)
