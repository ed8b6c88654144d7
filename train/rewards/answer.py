"""Is the answer right? Read sample by sample from the task, never from its neighbours in the batch.

The published scorers take the problem type of a batch from its first sample (Video-R1 `grpo.py`, Open-o3
`reward_func.py`), the first letter A-G of any word as the choice (VideoChat-R1 `grpo_tasks.py`: "Because" is B), or
every number that fits. Here a choice is named once, a number stands alone, and text is compared whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from ...core.nouns import Answer, Task
from ...core.scoring import normalise, score_answer
from ...core.trajectory import Trajectory
from .context import RewardContext, RewardError
from .text import rouge_mean

_NUMBER = re.compile(r"(?<![\w.])[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w])")


class OpenText(str, Enum):
    """How an answer in free words is compared with the gold one."""

    EXACT = "exact"
    ROUGE = "rouge"
    JUDGE = "judge"


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerReward:
    """Is the answer right: choice and number 1 or 0, interval the temporal IoU, free words exact, by ROUGE or by a judge.

    choices: 1 where the answer names the gold choice and no other (`core.scoring.match_choice`).
    kind "when": the IoU of the answered with the gold intervals, in [0, 1].
    a gold number: 1 where exactly one number is said and both are equal to two decimals. Source: Video-R1 `grpo.py`,
    "numerical". free words: 1 where equal after normalisation; else, with ROUGE, the mean of the F-measures of
    ROUGE-1, -2 and -L (Video-R1 "free-form", there with stemming); with JUDGE the score of the context.
    """

    open_text: OpenText = OpenText.EXACT
    name: str = "answer"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        task, answer = trajectory.task, trajectory.answer
        if task.kind == "when":
            if not task.evidence:
                raise RewardError(f"task {task.id} asks when, but has no gold evidence to score against")
            return score_answer(task, answer)
        if task.answer is None:
            raise RewardError(f"task {task.id} has no known answer to score against")
        if answer is None:
            return 0.0
        if task.choices or score_answer(task, answer) == 1.0:
            return score_answer(task, answer)
        if read_number(task.answer) is not None:
            return number_score(answer.text, task.answer)
        return self._open(task, answer, context)

    def _open(self, task: Task, answer: Answer, context: RewardContext) -> float:
        assert task.answer is not None
        if self.open_text is OpenText.ROUGE:
            return rouge_mean(answer.text, task.answer)
        if self.open_text is OpenText.JUDGE:
            if context.judged is None:
                raise RewardError("an open answer needs a judge's score in the context (`verify.with_verdicts`)")
            return context.judged
        return 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberCloseness:
    """How close a number comes: 1 - min(1, |said - gold| / |gold|); 0 where the gold answer is no number.

    Source: Video-R1 `grpo.py`, "regression". Exactly one number has to be said: a list of guesses scores 0. For a
    gold value of 0 only 0 is close.
    """

    name: str = "number"

    def __call__(self, trajectory: Trajectory, context: RewardContext) -> float:
        gold = read_number(trajectory.task.answer or "")
        said = read_number(trajectory.answer.text) if trajectory.answer else None
        if gold is None or said is None:
            return 0.0
        if gold == 0:
            return float(said == 0)
        return 1.0 - min(1.0, abs(said - gold) / abs(gold))


def read_number(text: str) -> float | None:
    """The one number in `text` ("3", "three", "1,250.5", "about 3 times"), or None where there is none or more than one."""
    found = [float(n.replace(",", "")) for n in _NUMBER.findall(text)]
    if not found:
        found = [float(w) for w in normalise(text).split() if w.isascii() and w.isdigit()]
    return found[0] if len(found) == 1 else None


def number_score(said: str, gold: str) -> float:
    """1 where both hold exactly one number and they are equal to two decimals, else 0."""
    a, b = read_number(said), read_number(gold)
    return float(a is not None and b is not None and round(a, 2) == round(b, 2))
