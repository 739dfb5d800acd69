"""The ASR judge: intelligibility of synthesized speech, by a recognizer of other speakers.

    python -m eval.judge train --manifest judge/manifest.jsonl --out exp/judge
    python -m eval.judge score --judge exp/judge --ref manifest.jsonl --hyp hyp.jsonl --out scores

Intelligibility is the character error rate of a recognizer that is independent of what it judges:
trained on recordings of other speakers, of waveforms and not of units, without a language model. It
errs on real recordings as well; that ground-truth CER is always reported beside the score.
"""

import sys
from pathlib import Path

COMMANDS = {"train": "unitone.eval.judge_train", "score": "unitone.eval.judge_score"}


def main(argv: list[str] | None = None) -> int:
    """Run ``train`` or ``score``, as the first argument says; return the exit status."""
    from importlib import import_module

    arguments = sys.argv[1:] if argv is None else argv
    called = Path(sys.argv[0]).name
    name = arguments[0] if arguments else "--help"
    if name not in COMMANDS:
        asked = name in ("-h", "--help")
        stream = sys.stdout if asked else sys.stderr
        stream.write(f"usage: {called} {{{','.join(COMMANDS)}}} ...\n\n{__doc__}")
        return 0 if asked and arguments else 2
    sys.argv = [f"{called} {name}", *arguments[1:]]  # what the command's own help calls itself
    status: int = import_module(COMMANDS[name]).main(arguments[1:])
    return status


if __name__ == "__main__":
    raise SystemExit(main())
