"""The `playhead` command: the door of the house. Heavy rooms are opened only by the command that needs them.

    playhead ask lecture.mp4 "What is written on the board?"

Bad input ends with exit code 2 and one line on stderr that says what, where and what to do; never with a traceback.
"""

from .app import app, main, run

__all__ = ["app", "main", "run"]
