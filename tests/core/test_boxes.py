"""Boxes: written by models, parsed, scored; and frames that show a part of the picture."""

import pytest
from playhead.agent.renderers.parsing import parse
from playhead.core.box import Box
from playhead.core.clip import Clip
from playhead.core.codec import from_plain, to_plain
from playhead.core.nouns import Answer, Frame, Task
from playhead.core.scoring import gold_boxes, parse_boxes, parse_spans, spatial_iou


def box(time_s: float, x0: float, y0: float, x1: float, y1: float) -> Box:
    return Box(video_id="v", time_s=time_s, x0=x0, y0=y0, x1=x1, y1=y1)


@pytest.mark.parametrize(
    "text",
    ["753.0: 170,370,630,830", "753 s: [170, 370, 630, 830]", "12:33: (170,370,630,830).", "at 753.0 170, 370, 630, 830"],
)
def test_boxes_are_read_as_models_write_them(text: str) -> None:
    assert parse_boxes(text, "v") == (box(753.0, 0.17, 0.37, 0.63, 0.83),)


def test_text_and_back_and_several() -> None:
    both = (box(1.0, 0.1, 0.2, 0.3, 0.4), box(2.5, 0.0, 0.0, 1.0, 1.0))
    assert parse_boxes("; ".join(b.text for b in both), "v") == both


FIVE = ["1: 1,2,3,4,5", "1.0: [1, 2, 3, 4, 5]", "753.0: 170,370,630,830,900", "1,2,3,4,5"]


@pytest.mark.parametrize("text", ["", "1.0: 1,2,3", "1.0: 500,0,400,300", "1.0: 0,0,1200,500", "170,370,630,830", *FIVE])
def test_what_is_no_box_is_dropped(text: str) -> None:
    assert parse_boxes(text, "v") == ()


def test_a_box_is_inside_the_frame() -> None:
    with pytest.raises(ValueError, match="0 <= x0 < x1 <= 1"):
        box(0, 0.5, 0, 0.5, 1)
    with pytest.raises(ValueError, match="finite time"):
        box(float("nan"), 0, 0, 1, 1)


def test_iou_by_hand() -> None:
    left, right = box(1, 0, 0, 0.5, 1), box(1, 0.25, 0, 0.75, 1)
    assert left.iou(right) == pytest.approx(1 / 3) and left.iou(left) == 1.0
    assert left.iou(Box(video_id="w", time_s=1, x0=0, y0=0, x1=0.5, y1=1)) == 0.0


def test_spatial_iou_looks_at_the_time_and_punishes_many_guesses() -> None:
    gold = [box(1, 0, 0, 0.5, 1)]
    assert spatial_iou([box(1.4, 0, 0, 0.5, 1)], gold) == 1.0
    assert spatial_iou([box(1.6, 0, 0, 0.5, 1)], gold) == 0.0
    assert spatial_iou([box(1, 0, 0, 0.5, 1), box(9, 0, 0, 1, 1)], gold) == 0.5
    assert spatial_iou([], gold) == spatial_iou(gold, []) == spatial_iou([], []) == 0.0


def test_the_answer_cites_boxes_beside_its_evidence() -> None:
    said = "<think>x</think>\n<answer>top left</answer>\n<evidence>752.0-757.0</evidence>\n<box>753.0: 60,60,520,520</box>"
    parsed = parse(said, 0)
    assert (parsed.answer, parsed.evidence, parsed.boxes) == ("top left", "752.0-757.0", "753.0: 60,60,520,520")
    assert len(parse_spans(parsed.evidence or "", "v")) == 1
    assert parse("<answer>red</answer>", 0).boxes is None


def test_gold_boxes_stand_in_the_tasks_meta() -> None:
    clip = Clip(video_id="v", start_s=1, end_s=2)
    task = Task(id="t", question="?", video="f", evidence=(clip,), meta={"boxes": "1.0: 0,0,500,1000"})
    assert gold_boxes(task) == (box(1, 0, 0, 0.5, 1),)
    assert gold_boxes(Task(id="t", question="?", video="f", evidence=(clip,))) == ()


def test_records_from_before_boxes_are_read() -> None:
    frame = Frame(video_id="v", timestamp_s=1.0, sha256="x", width=4, height=4, box=(0.0, 0.25, 0.5, 1.0))
    assert from_plain(Frame, to_plain(frame)) == frame
    old = {"video_id": "v", "timestamp_s": 1.0, "sha256": "x", "width": 4, "height": 4}
    assert from_plain(Frame, old).box is None
    assert from_plain(Answer, {"text": "red", "evidence": []}) == Answer(text="red")
    cited = Answer(text="red", boxes=(box(1, 0, 0, 0.5, 1),))
    assert from_plain(Answer, to_plain(cited)) == cited
