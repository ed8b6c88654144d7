"""Decoders: a file's frames by presentation time. Two implementations of one protocol, one test suite.

pyav    the default: exact on everything FFmpeg reads, gives the readable part of a damaged file
decord  a second opinion on sound files; needs the `decord` package

load_decoder("pyav").shown(track, [0.0, 12.5], size=(224, 224))
"""

from __future__ import annotations

from ..errors import VideoError
from .contract import DecodedFrame, Decoder, Track

__all__ = ["DECODERS", "DecodedFrame", "Decoder", "Track", "load_decoder"]

DECODERS = ("pyav", "decord")


def load_decoder(name: str) -> Decoder:
    """The decoder called `name`; its library is imported here and not before.

    Raises:
        VideoError: there is no such decoder, or its library is not installed.
    """
    try:
        if name == "pyav":
            from .pyav import PyavDecoder

            return PyavDecoder()
        if name == "decord":
            from .decord import DecordDecoder

            return DecordDecoder()
    except ImportError as error:
        raise VideoError(f"decoder {name!r} needs a package that is missing ({error}): pip install {name}") from None
    raise VideoError(f"there is no decoder {name!r}; choose one of {', '.join(DECODERS)}")
