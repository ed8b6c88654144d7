"""Errors a user may meet. Each is one clear line: what, where, what to do. The command line prints them without a traceback.

Model faults (a malformed call, a time outside the video) are not errors: they are observations the model can read.
"""

from __future__ import annotations


class PlayheadError(Exception):
    """Base of all errors that are the user's to mend, not ours."""


class VideoError(PlayheadError):
    """A file that cannot be read as a video, or only in part."""


class VideoWarning(UserWarning):
    """Part of a video is damaged: what could be read was given, and this says what was not."""


class ModelError(PlayheadError):
    """A model that is missing, of an unsupported type, too large, or that failed."""


class DataError(PlayheadError):
    """A task or trajectory file with a bad record; the message names file and line."""


class IndexingError(PlayheadError):
    """A clip index that cannot be built or read."""
