"""The frames of a pass: each job holds the features of those that its next tokens show, and of no others."""

from __future__ import annotations

from collections.abc import Sequence

from .job import Job
from .step import Take
from .vision import VisionCache, frame_key


def give_features(vision: VisionCache, takes: Sequence[Take]) -> dict[Job, Exception]:
    """Give every job of `takes` what it lacks, all in one batch. Returns why it failed, for those jobs whose own frames
    cannot be read or encoded."""
    wanted: dict[Job, list[int]] = {}
    for take in takes:
        job = take.job
        shown = {i for i, _, _ in job.prompt.shown(job.done, job.done + take.tokens)}
        job.features = {i: f for i, f in job.features.items() if i in shown}
        wanted[job] = [i for i in sorted(shown) if i not in job.features]
    try:
        _encode(vision, wanted)
    except Exception:  # somebody's frame: one job at a time, then, to find out whose
        failures: dict[Job, Exception] = {}
        for job, indices in wanted.items():
            try:
                _encode(vision, {job: indices})
            except Exception as error:
                failures[job] = error
        return failures
    return {}


def _encode(vision: VisionCache, wanted: dict[Job, list[int]]) -> None:
    frames = [job.prompt.frames[i] for job, indices in wanted.items() for i in indices]
    if not frames:
        return
    found = vision.get(frames)
    for job, indices in wanted.items():
        for i in indices:
            job.features[i] = found[frame_key(job.prompt.frames[i])]
