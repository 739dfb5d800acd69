"""The ``unitone`` command: one door to every command of the toolkit.

Each command is a module with ``main(argv: list[str] | None = None) -> int``; it is imported only
when it is asked for, so that ``unitone --help`` answers at once and never imports torch.
"""

import sys
from importlib import import_module

import unitone

COMMANDS: dict[str, tuple[str, str]] = {
    "corpus": ("unitone.corpus.cuts", "Check a corpus and write it as a Lhotse CutSet"),
    "espeak": ("unitone.recipes.espeak.corpus", "Make the embedded synthetic corpus (en, de, fr)"),
    "perturb": ("unitone.corpus.perturb", "Copy a corpus at other speeds"),
    "build": ("unitone.tokenizers.build", "Train a tokenizer: k-means on SSL features"),
    "encode": ("unitone.tokenizers.encode", "Turn recordings into token shards"),
    "codes": ("unitone.codecs.encode", "Add the codes of a neural codec to token shards"),
    "synthesize": ("unitone.codecs.synthesize", "Make waveforms of the units or codes of shards"),
    "features": ("unitone.tokenizers.features", "Write the SSL features of recordings as .npy"),
    "train": ("unitone.lm.train", "Train a language model on token shards"),
    "certify": ("unitone.lm.certify.command", "Check a training set-up in a minute"),
    "decode": ("unitone.lm.decode", "Recognize, synthesize, translate, classify a corpus"),
    "transcribe": ("unitone.lm.transcribe", "Say what is said in recordings"),
    "speak": ("unitone.lm.speak", "Say a text"),
    "translate": ("unitone.lm.translate", "Translate a recording or a text"),
    "wer": ("unitone.eval.wer", "Score recognized text: WER and CER, with intervals"),
    "bleu": ("unitone.eval.bleu", "Score translations: BLEU, chrF and TER, with intervals"),
    "classify": ("unitone.eval.classify", "Score labels: accuracy and confusions, with intervals"),
    "judge": (
        "unitone.eval.judge.__main__",
        "Train an ASR judge, score intelligibility",
    ),
    "memory": ("unitone.lm.memory", "Find the largest batch that fits into memory"),
    "average": ("unitone.lm.average", "Average the last checkpoints of a language model"),
    "export": ("unitone.lm.export", "Write a model as plain Transformers files"),
    "vocoder": ("unitone.codecs.train", "Train a unit decoder: units and a speaker to speech"),
    "tour": ("unitone.recipes.tour.tour", "Run the main job from end to end on an embedded corpus"),
    "doctor": ("unitone.doctor", "Show versions, devices, extras, and what to install"),
}
"""Command name: the module whose ``main`` it is, and its line of help."""

USAGE_ERROR = 2


def main(argv: list[str] | None = None) -> int:
    """Run the command that ``argv`` (default: ``sys.argv[1:]``) names; return its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        sys.stdout.write(help_text())
        return 0 if arguments else USAGE_ERROR
    if name in ("-V", "--version"):
        sys.stdout.write(f"unitone {unitone.__version__}\n")
        return 0
    if name not in COMMANDS:
        sys.stderr.write(_unknown(name))
        return USAGE_ERROR
    command = import_module(COMMANDS[name][0])
    sys.argv = [f"unitone {name}", *arguments[1:]]  # what the command's own help calls itself
    status: int = command.main(arguments[1:])
    return status


def help_text() -> str:
    """Return what ``unitone --help`` prints."""
    width = max(map(len, [*COMMANDS, "--version"]))
    commands = "".join(f"  {name:<{width}}  {line}\n" for name, (_, line) in COMMANDS.items())
    return (
        "usage: unitone COMMAND [OPTION ...]\n\n"
        "Speech to discrete units and back: tokenizers, language models, codecs, recipes.\n\n"
        f"commands:\n{commands}\n"
        "options:\n"
        f"  {'--help':<{width}}  Show this text; unitone COMMAND --help shows a command's options\n"
        f"  {'--version':<{width}}  Show the version\n"
    )


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    what = "option" if name.startswith("-") else "command"
    near = get_close_matches(name, [*COMMANDS, "--help", "--version"], n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]}?" if near else ""
    return (
        f"error: no {what} {name!r}{guess}\ncommands: {', '.join(COMMANDS)}; see unitone --help\n"
    )
