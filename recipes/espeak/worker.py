"""Speak the lines of standard input with eSpeak NG. Only ever run as a program, never imported.

eSpeak NG is under GPL-3; this process is the only one that loads it, and it loads nothing of ours.

    python -I -S worker.py FOLDER < requests > answers

``FOLDER`` holds the shared library and ``espeak-ng-data``. The first line of the answer is the
version of eSpeak NG. A request is a line of tab-separated voice, rate (words a minute), pitch,
range (both 0 to 100, 50 is the voice's own), volume (100 is loud) and text. Its answer is a line
``num_samples sample_rate phone:start phone:start …`` (starts in samples) and then the samples,
16-bit in the byte order of the machine.

eSpeak NG keeps much from one utterance to the next (the phase of its flutter, echo and noise
buffers) that no function of it resets, so that the sound would depend on what was said before.
Hence the library is loaded anew for every request, which costs about 0.3 ms.
"""

import _ctypes
import ctypes
import sys
from typing import Any

# speak_lib.h of eSpeak NG 1.50 to 1.52
_SYNCHRONOUS = 2
_PHONEME_EVENTS = 1
_PARAMETERS = (1, 3, 4, 2)  # rate, pitch, range, volume
_UTF8 = 1
_LIST_TERMINATED, _PHONEME = 0, 7
_NAMES = {"linux": "libespeak-ng.so", "darwin": "libespeak-ng.dylib", "win32": "espeak-ng.dll"}


class _Identity(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


def _unload(library: ctypes.CDLL) -> None:
    library.espeak_Terminate()
    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)


def _check(status: int, what: str) -> None:
    if status != 0:
        raise SystemExit(f"eSpeak NG: {what} failed with status {status}")


def _speak(library: ctypes.CDLL, folder: str, request: str) -> tuple[str, bytes]:
    """Return the head and the samples of the answer to ``request``."""
    voice, *values, text = request.split("\t")
    samples: list[bytes] = []
    phones: list[str] = []

    def receive(wave: int | None, num_samples: int, events: Any) -> int:
        if wave and num_samples > 0:
            samples.append(ctypes.string_at(wave, 2 * num_samples))
        position = 0
        while events[position].type != _LIST_TERMINATED:
            event = events[position]
            if event.type == _PHONEME:
                name = bytes(event.id)[:8].split(b"\0", 1)[0].decode("utf-8", "replace")
                phones.append(f"{name}:{event.sample}")
            position += 1
        return 0

    callback = _CALLBACK(receive)
    sample_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, folder.encode(), _PHONEME_EVENTS)
    if sample_rate <= 0:
        raise SystemExit(f"eSpeak NG: cannot initialize from {folder} (status {sample_rate})")
    library.espeak_SetSynthCallback(callback)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # espeak_Initialize seeds it with the time
    _check(library.espeak_SetVoiceByName(voice.encode()), f"setting the voice {voice}")
    for parameter, value in zip(_PARAMETERS, values, strict=True):
        _check(library.espeak_SetParameter(parameter, int(value), 0), "setting a parameter")
    data = text.encode()
    arguments = (data, ctypes.c_size_t(len(data) + 1), 0, 1, 0, _UTF8, None, None)
    _check(library.espeak_Synth(*arguments), f"speaking {text!r}")
    wave = b"".join(samples)
    return f"{len(wave) // 2} {sample_rate} {' '.join(phones)}\n", wave


def _load(path: str) -> ctypes.CDLL:
    """Load the library; refuse one that was not unloaded and so remembers the last utterance."""
    library = ctypes.CDLL(path)
    if library.espeak_ng_GetSampleRate() != 0:  # set by espeak_Initialize
        raise SystemExit("eSpeak NG: this system does not unload the library between utterances")
    return library


def main() -> None:
    """Answer the requests on standard input until its end."""
    folder = sys.argv[1]
    path = f"{folder}/{_NAMES[sys.platform]}"
    library = _load(path)
    library.espeak_Info.restype = ctypes.c_char_p
    sys.stdout.buffer.write(library.espeak_Info(None) + b"\n")
    for line in sys.stdin.buffer:
        head, wave = _speak(library, folder, line.decode().rstrip("\n"))
        sys.stdout.buffer.write(head.encode())
        sys.stdout.buffer.write(wave)
        _unload(library)
        library = _load(path)


if __name__ == "__main__":
    main()
