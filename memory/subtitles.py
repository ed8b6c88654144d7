"""Subtitles: what is said in a video and when, from files beside it (SRT, VTT) and from streams inside it.

    subtitles = subtitles_of(video)
    subtitles.search("lantern", 3)                              # by words, best first
    subtitles.between(750.0, 762.0, 8)                          # in order of time

Files count when they have the video's name: film.srt, film.en.srt, film.pt-BR.forced.vtt beside film.mp4. Encodings are
guessed (byte-order mark, UTF-8, UTF-16, Windows-1252, Latin-1). Markup is dropped. A cue that cannot be read is skipped and
counted; the rest is used. Cues of one source that overlap are one line, so that rolling captions are not said twice, and a
line that stands in several sources is kept once.
"""

from __future__ import annotations

import html
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from threading import Lock

from ..core.clip import Clip
from ..core.subtitle_streams import subtitle_texts
from ..core.video import Video
from .text import TextMemory

SUFFIXES = (".srt", ".vtt")
MAX_BYTES = 16 << 20
"""Larger files are no subtitles."""
TOUCH_S = 0.1
"""The same text again after at most so long is the same line."""

_CLOCK = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?$")
_TAGS = re.compile(r"</?[A-Za-z][^<>\n]*>|<\d[\d:.]*>|\{\\[^{}\n]*\}")
_NOT_CUES = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:\s|$)")
_LANGUAGE = re.compile(r"(?:\.[A-Za-z0-9_-]{1,16}){0,2}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cue:
    """Something said: one line of text, without markup."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Subtitles:
    """All that is said in one video, in order of time. `skipped`: how many cues, streams or files could not be read."""

    video_id: str
    cues: tuple[Cue, ...]
    skipped: int = 0
    _texts: TextMemory = field(default_factory=TextMemory, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._texts.add_all(self.video_id, "subtitle", [(self._clip(cue), cue.text) for cue in self.cues])

    def search(self, query: str, k: int, within: tuple[float, float] | None = None) -> list[Cue]:
        """The k lines that fit best, best first: those with every word of `query`, then those with any of them; where no
        word is known (half a word, a script without spaces), those that contain it."""
        found: list[Cue] = []
        for every_word in (True, False):
            for hit in self._texts.search(self.video_id, query, k, every_word=every_word, within=within):
                cue = Cue(start_s=hit.clip.start_s, end_s=hit.clip.end_s, text=hit.text)
                if cue not in found:
                    found.append(cue)
        if not found and query.strip():
            inside = query.strip().casefold()
            found = [c for c in self.cues if inside in c.text.casefold() and _meets(c, within)]
        return found[:k]

    def between(self, start_s: float, end_s: float, k: int) -> list[Cue]:
        """The first k lines that are said between these seconds, in order of time."""
        return [c for c in self.cues if _meets(c, (start_s, end_s))][:k]

    def _clip(self, cue: Cue) -> Clip:
        return Clip(video_id=self.video_id, start_s=cue.start_s, end_s=cue.end_s)


_LOCK = Lock()


def subtitles_of(video: Video) -> Subtitles:
    """The subtitles of a video; kept for the videos lately asked about, and read anew when a file has changed."""
    with _LOCK:  # so that calls of one turn do not all read the same file
        return _read(video, tuple(_stamp(file) for file in sidecars(video.path)))


def has_subtitles(video: Video) -> bool:
    """Whether there is something to search: a file beside the video, or a text stream in it. Reads them."""
    if not any(s.kind == "subtitle" for s in video.streams) and not sidecars(video.path):
        return False
    return bool(subtitles_of(video).cues)


def sidecars(path: Path) -> list[Path]:
    """The subtitle files that belong to the video at `path`, by name."""
    try:
        beside = sorted(path.parent.iterdir())
    except OSError:
        return []
    others = {f.stem for f in beside if f.suffix.lower() not in SUFFIXES and f.name != path.name}
    found = []
    for file in beside:
        rest = file.stem.removeprefix(path.stem)
        if file.suffix.lower() not in SUFFIXES or not file.stem.startswith(path.stem) or not _LANGUAGE.fullmatch(rest):
            continue
        # film.part2.srt is the subtitle of film.part2.mp4, where there is one.
        if (not rest or file.stem not in others) and _is_text(file):
            found.append(file)
    return found


@lru_cache(maxsize=8)
def _read(video: Video, files: tuple[tuple[Path, int, int], ...]) -> Subtitles:
    sources: dict[object, list[Cue]] = {}
    skipped = 0
    for file, _, _ in files:
        try:
            sources[file], bad = parse_subtitles(decode_text(file.read_bytes()))
        except OSError:
            bad = 1
        skipped += bad
    for text in subtitle_texts(video):
        cue = None if text is None else _cue(text.start_s, text.end_s, text.text)
        if text is not None and cue is not None:
            sources.setdefault(text.stream, []).append(cue)
        skipped += cue is None
    lines = dict.fromkeys(cue for source in sources.values() for cue in join(_inside(source, video.duration_s)))
    return Subtitles(video.id, tuple(sorted(lines, key=lambda c: (c.start_s, c.end_s))), skipped)


def decode_text(data: bytes) -> str:
    """The text of a file in an unknown encoding; never fails."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
                           (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):  # fmt: skip
        if data.startswith(mark):
            return data.decode(encoding, errors="replace").removeprefix("\ufeff")
    # UTF-16 without a mark: every digit and colon of a time line has a zero byte beside it.
    zeros = [data[:4096][i::2].count(0) * 4 > len(data[:4096]) / 2 for i in (0, 1)]
    if any(zeros):
        return data.decode("utf-16-be" if zeros[0] else "utf-16-le", errors="replace")
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def parse_subtitles(text: str) -> tuple[list[Cue], int]:
    """(cues in the order of the file, how many could not be read) of an SRT or VTT file."""
    cues: list[Cue] = []
    skipped = 0
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        for timing, said in _timed(block.strip("\n\ufeff").split("\n")):
            match = _TIMING.match(timing)
            cue = _cue(_seconds(*match.groups()[:4]), _seconds(*match.groups()[4:]), said) if match else None
            if cue is None:
                skipped += 1
            else:
                cues.append(cue)
    return cues, skipped


def _timed(lines: list[str]) -> Iterator[tuple[str, str]]:
    """(timing line, the text under it) for each in a block; some files leave out the blank line between cues."""
    if _NOT_CUES.match(lines[0]) and not any(_TIMING.match(line) for line in lines[1:3]):
        return
    at = [i for i, line in enumerate(lines) if "-->" in line]
    for i, following in pairwise([*at, len(lines)]):
        # The number of the next cue is not said by anyone.
        numbered = following < len(lines) and lines[following - 1].strip().isdigit()
        yield lines[i], "\n".join(lines[i + 1 : following - numbered])


def _cue(start_s: float, end_s: float, text: str) -> Cue | None:
    plain = html.unescape(_TAGS.sub("", text)).replace("\u200e", "").replace("\u200f", "")
    plain = " ".join(plain.split())
    return Cue(start_s=max(0.0, start_s), end_s=end_s, text=plain) if plain and end_s > max(0.0, start_s) else None


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")


def _inside(cues: Iterable[Cue], duration_s: float) -> list[Cue]:
    shown = (Cue(start_s=c.start_s, end_s=min(c.end_s, duration_s), text=c.text) for c in cues if c.start_s < duration_s)
    return sorted(shown, key=lambda c: (c.start_s, c.end_s))


def join(cues: Iterable[Cue]) -> list[Cue]:
    """Cues of one source, in order of time, with those joined that are one line: the same text going on, a text that the
    next one continues, or two that are mostly shown at the same time."""
    lines: list[Cue] = []
    for cue in cues:
        last = lines[-1] if lines else None
        both = None if last is None else _joined(last, cue)
        if both is None:
            lines.append(cue)
        else:
            lines[-1] = both
    return lines


def _joined(a: Cue, b: Cue) -> Cue | None:
    overlap = min(a.end_s, b.end_s) - b.start_s
    end_s = max(a.end_s, b.end_s)
    if b.text == a.text and overlap >= -TOUCH_S:
        return Cue(start_s=a.start_s, end_s=end_s, text=a.text)
    if overlap <= 0:
        return None
    if b.text.startswith(a.text) or overlap > 0.5 * min(a.end_s - a.start_s, b.end_s - b.start_s):
        text = b.text if b.text.startswith(a.text) else a.text if b.text in a.text else f"{a.text} {b.text}"
        return Cue(start_s=a.start_s, end_s=end_s, text=text)
    return None


def _meets(cue: Cue, within: tuple[float, float] | None) -> bool:
    return within is None or (cue.start_s < within[1] and cue.end_s > within[0])


def _stamp(file: Path) -> tuple[Path, int, int]:
    try:
        status = file.stat()
    except OSError:  # gone since it was listed: reading it counts as skipped
        return file, 0, 0
    return file, status.st_mtime_ns, status.st_size


def _is_text(file: Path) -> bool:
    try:
        status = file.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES
