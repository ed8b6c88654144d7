"""Clip: a half-open stretch of time `[start_s, end_s)` in one video.

Tools take and return clips, never loose pairs of floats. Seconds count from the start of the file, in
presentation time (the time a player's slider shows).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A half-open interval of seconds in a video.

    Raises:
        ValueError: when the interval ends before it starts, or a bound is not a finite number.
    """

    video_id: str
    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        # NaN fails both comparisons, infinity the last two: all three are refused here.
        ok = self.start_s <= self.end_s and self.start_s > float("-inf") and self.end_s < float("inf")
        if not ok:
            raise ValueError(f"a clip needs start_s <= end_s, both finite; got {self.start_s} to {self.end_s}")

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def centre_s(self) -> float:
        return (self.start_s + self.end_s) / 2

    def contains(self, t_s: float) -> bool:
        return self.start_s <= t_s < self.end_s

    def overlap_s(self, other: Clip) -> float:
        """Seconds shared with `other`; 0 across videos."""
        if self.video_id != other.video_id:
            return 0.0
        return max(0.0, min(self.end_s, other.end_s) - max(self.start_s, other.start_s))

    def iou(self, other: Clip) -> float:
        """Temporal intersection over union, in [0, 1]; two empty clips score 0, not 1."""
        shared = self.overlap_s(other)
        union = self.duration_s + other.duration_s - shared
        return shared / union if union > 0 else 0.0

    def clamp(self, start_s: float, end_s: float) -> Clip:
        """The part inside `[start_s, end_s)`, possibly empty."""
        lo = min(max(self.start_s, start_s), end_s)
        hi = max(min(self.end_s, end_s), lo)
        return Clip(video_id=self.video_id, start_s=lo, end_s=hi)


def merge_clips(clips: tuple[Clip, ...]) -> tuple[Clip, ...]:
    """The union of `clips` as disjoint clips in order of (video, time); touching ones are joined, empty ones dropped."""
    merged: list[Clip] = []
    for clip in sorted(clips, key=lambda c: (c.video_id, c.start_s)):
        if clip.duration_s <= 0:
            continue
        last = merged[-1] if merged else None
        if last and last.video_id == clip.video_id and clip.start_s <= last.end_s:
            merged[-1] = Clip(video_id=clip.video_id, start_s=last.start_s, end_s=max(last.end_s, clip.end_s))
        else:
            merged.append(clip)
    return tuple(merged)
