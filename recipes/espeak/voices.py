"""Who speaks in the embedded corpus: sets of eSpeak NG's voice variants, with tempo and register.

No variant is in two sets, so a recognizer trained on one set has never met the other's voices.
"""

from dataclasses import dataclass
from typing import Literal

VoiceSet = Literal["main", "judge"]


@dataclass(frozen=True)
class Speaker:
    name: str
    """Also the name of eSpeak NG's voice variant, which sets formants and register."""
    gender: str
    rate: int
    """Words a minute."""
    pitch: int
    """0 to 100; 50 is the variant's own."""


SPEAKERS: dict[VoiceSet, tuple[Speaker, ...]] = {
    "main": (
        Speaker("m1", "male", 165, 45),
        Speaker("m3", "male", 178, 60),
        Speaker("m4", "male", 170, 40),
        Speaker("m6", "male", 160, 55),
        Speaker("m7", "male", 173, 65),
        Speaker("f1", "female", 170, 45),
        Speaker("f2", "female", 162, 50),
        Speaker("f3", "female", 175, 60),
        Speaker("f4", "female", 180, 40),
        Speaker("f5", "female", 167, 55),
    ),
    # chosen for the spread of their formants, echo and noise, around those of the main voices
    "judge": (
        Speaker("m2", "male", 168, 55),
        Speaker("m5", "male", 174, 45),
        Speaker("m8", "male", 162, 65),
        Speaker("Alex", "male", 180, 40),
        Speaker("Gene", "male", 170, 60),
        Speaker("robert", "male", 164, 50),
        Speaker("belinda", "female", 172, 35),
        Speaker("steph", "female", 165, 50),
        Speaker("Annie", "female", 178, 55),
        Speaker("linda", "female", 161, 45),
    ),
}
