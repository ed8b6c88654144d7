"""Every word that the agent itself puts before the model. Pure functions and constants; training depends on them to the byte.

An episode reads: (system, for models not trained on this loop) + question with skim frames, then turns of the model, tool
responses, and at most one reminder or notice per turn. Outside text (questions, choices) is passed through as it is: the
renderer is the place where control tokens in it are disarmed.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..core.nouns import Frame, Message, Part

SYSTEM_PROMPT = (
    "You answer questions about a video that is too long to see at once. You first get a few frames spread over the whole "
    "video, each with its time in seconds. Think inside <think></think>. Then either call tools to look where it matters, "
    "or, when frames you have seen prove the answer, finish with exactly this form:\n"
    "<answer>your short answer</answer>\n"
    "<evidence>START-END</evidence>\n"
    "where START-END are the seconds of the video that prove it (several spans are separated by '; '). With options, "
    "answer with the text of one option. To a question about when something happens, answer with START-END in seconds."
)
"""For models that were not trained on this loop; the embedded model needs none."""

FORCED_ANSWER = "<think>Time is up.</think>\n<answer>"
"""The opening of an answer that the agent puts in the model's mouth when the budget runs out."""

FORCED_ANSWER_AFTER_CUT = "</think>\n<answer>"
"""The same inside a turn that was cut before its thought was closed."""

CAPTION_PROMPT = "Describe this frame in one sentence."


def question_content(
    video_duration_s: float, frames: Sequence[Frame], question: str, choices: Sequence[str] = ()
) -> tuple[Part, ...]:
    """The first user message: the video's length, the skim frames in order of time, the question, its options."""
    tail = f"\n{question}"
    if choices:
        tail += "\nOptions: " + " ".join(f"({choice_letter(i)}) {choice}" for i, choice in enumerate(choices))
    head = f"Video of {video_duration_s:.1f} seconds.\n"
    return (head, *frames, tail) if frames else (head + tail,)


def choice_letter(index: int) -> str:
    """A, B, ... Z, then 27, 28, ...: nobody offers that many, but nothing breaks."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def first_messages(
    video_duration_s: float, frames: Sequence[Frame], question: str, choices: Sequence[str] = (), system: str = ""
) -> tuple[Message, ...]:
    """The messages that open an episode; no system message when `system` is empty."""
    opening = Message(role="user", content=question_content(video_duration_s, frames, question, choices))
    return (Message(role="system", content=(system,)), opening) if system else (opening,)


def reminder(error: str, *, with_tools: bool = True) -> str:
    """What the model is told after a turn that could not be read."""
    rest = "Write <answer>ANSWER</answer>, or call one of the tools." if with_tools else "Write <answer>ANSWER</answer>."
    return f"That could not be read: {error} {rest}"


def out_of(what: str) -> str:
    """What a tool call gets back when nothing is left to spend on it."""
    return f"Not run: no {what} left. Answer now with what you have seen."


TOO_LONG = "The result does not fit into what is left of the context. Answer now with what you have seen."
