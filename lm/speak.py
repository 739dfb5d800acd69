"""Say a text: ``unitone speak "two dogs are playing" --out a.wav``."""

import logging
from dataclasses import dataclass
from pathlib import Path

import tyro

from unitone import program
from unitone.config import command_line
from unitone.errors import ConfigError
from unitone.lm.options import DecodingPrecision

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SpeakConfig:
    text: tyro.conf.Positional[str]
    """What to say, in quotes."""
    out: Path
    """WAV file to write."""
    speaker: str | None = None
    """Whose voice; default: the first that the model knows."""
    language: str | None = None
    """Of the text; default: the one that the model finds it likeliest in."""
    prompt: Path | None = None
    """Recording of somebody to follow, for a model with a task that reads {prompt_units}."""
    verify: bool = False
    """Recognize what was made, and make again what isn't the text; of models that can."""
    model: Path | None = None
    """Model directory; default: the tour's, exp/tour/lm/best."""
    decoder: Path | None = None
    """Directory of a unit decoder or of the model's codec; default: the model's own."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: DecodingPrecision = "fp32"
    """fp32, bf16 where the processor has it, or int8, on a CPU."""


def speak(config: SpeakConfig) -> None:
    """Write the sound."""
    if config.out.suffix.lower() != ".wav":
        raise ConfigError(f"--out {config.out}: what is written is WAV, call it *.wav")
    from unitone.codecs.codec import write_wave
    from unitone.lm.inference import open_model

    model = open_model(
        config.model, device=config.device, decoder=config.decoder, precision=config.precision
    )
    sound = model.speak(
        config.text,
        speaker=config.speaker,
        language=config.language,
        prompt=config.prompt,
        verify=config.verify,
    )
    write_wave(config.out, sound)
    logger.info("%.2f s in %s", len(sound.wave) / sound.rate, config.out)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    config = command_line(SpeakConfig, argv, __doc__, renamed={"--sample": "--prompt"})
    return program.run(lambda: speak(config))


if __name__ == "__main__":
    raise SystemExit(main())
