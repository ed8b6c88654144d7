"""The page and its timeline: everything is there, everything foreign is escaped, nothing is loaded from elsewhere."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from playhead.core.nouns import Answer, Frame, ToolCall
from playhead.core.video import Video
from playhead.demo.page import build_page
from playhead.demo.thumbs import thumb_key, thumbnails
from playhead.demo.timeline import call_label, clock, duration_s, lanes, lens, ticks
from playhead.world.film import write_film
from playhead.world.scene import Scene

NASTY = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>"


class Tags(HTMLParser):
    """Counts tags and attributes as a browser would see them, and checks that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def names(self) -> list[str]:
        return [name for name, _ in self.seen]


def test_lanes_in_the_order_of_what_happened(make_task, make_trajectory) -> None:
    task = make_task()
    made = lanes(make_trajectory(task, refused=1))
    assert [lane.kind for lane in made] == ["skim", "search_clips", "temporal_zoom", "temporal_zoom", "answer"]
    assert [m.start_s for m in made[0].marks] == [150.0, 450.0]
    assert made[1].marks[0].end_s == 103.0 and made[1].marks[-1].frame is not None
    assert made[3].marks == ()  # a refused call looked at nothing
    assert [(m.start_s, m.end_s) for m in made[4].marks] == [(100.0, 106.0)]


def test_the_line_is_as_long_as_the_video(make_task, make_trajectory) -> None:
    trajectory = make_trajectory(make_task())
    assert duration_s(trajectory) == 1200.0
    assert duration_s(replace(trajectory, turns=())) == 106.0  # nothing states it: the last second that is named
    assert lens(trajectory) == (88.0, 118.0)


@pytest.mark.parametrize("span", [(0.0, 1200.0), (88.0, 118.0), (0.0, 0.5), (0.0, 7200.0), (0.0, 90000.0)])
def test_ticks_are_few_and_inside(span: tuple[float, float]) -> None:
    made = list(ticks(*span))
    assert 1 <= len(made) <= 10 and all(span[0] <= t <= span[1] for t in made)


def test_clocks_and_calls_in_words() -> None:
    assert (clock(59.6), clock(3600), clock(0)) == ("1:00", "1:00:00", "0:00")
    calls = {
        ("temporal_zoom", '{"start_s": 64.0, "end_s": 75}'): "zoom: 1:04 to 1:15",
        ("temporal_zoom", '{"start_s": "soon", "end_s": 75}'): "temporal_zoom: soon, 75",
        ("temporal_zoom", '{"start_s": NaN, "end_s": 75}'): "temporal_zoom: nan, 75",
        ("search_clips", '{"query": "red star", "k": 3}'): "search: red star",
        ("search_clips", "[1"): "search_clips [1",
        ("made_up", "[1]"): "made_up [1]",
    }
    for (name, arguments), words in calls.items():
        assert call_label(ToolCall(id="1", name=name, arguments_json=arguments)) == words


def test_the_page_is_whole_and_closed(make_task, make_trajectory) -> None:
    trajectories = [make_trajectory(make_task(number=i), refused=i) for i in range(2)]
    trajectories.append(make_trajectory(make_task(number=7), said=None))
    thumbs = {("v", 102.0, None): "data:image/jpeg;base64,AAAA"}
    page = build_page(trajectories, thumbs, ["gone.mp4: no such file"])
    tags = Tags(page)
    assert tags.open == []
    assert tags.names().count("section") == 3
    assert "gone.mp4: no such file" in page and "2 of 3 right" in page
    sources = [a.get("src") for t, a in tags.seen if t == "img" and a.get("src")]
    assert sources and all(s and s.startswith("data:") for s in sources)
    assert not re.search(r"https?://", page)


def test_foreign_text_never_becomes_markup(make_task, make_trajectory) -> None:
    task = replace(make_task(), question=NASTY, choices=(NASTY, "b"), answer=NASTY, video=f"/x/{NASTY}", kind=NASTY)
    trajectory = make_trajectory(task)
    turn = trajectory.turns[0]
    call = replace(turn.tool_calls[0], name=NASTY, arguments_json=NASTY)
    seen = replace(turn.observations[0], error=NASTY, content=(NASTY,))
    said = replace(turn.completion, text=NASTY)
    turn = replace(turn, thought=NASTY, tool_calls=(call,), observations=(seen,), completion=said)
    bare = replace(trajectory.turns[-1], thought="", tool_calls=(), completion=said)
    trajectory = replace(
        trajectory,
        turns=(turn, *trajectory.turns[1:-1], bare),
        answer=Answer(text=NASTY),
        error=NASTY,
        model=NASTY,
    )
    tags = Tags(build_page([trajectory], {}, [NASTY]))
    assert tags.names().count("script") == 1 and tags.names().count("img") == 1  # our own
    assert not any(name.startswith("on") for _, attributes in tags.seen for name in attributes)


def test_a_page_of_nothing_is_a_page() -> None:
    assert Tags(build_page([], {})).open == []


def test_a_crop_is_shown_as_the_part_that_it_is(make_task, make_trajectory, tmp_path) -> None:
    """Beside the whole frame of the same time, from which it was cut."""
    scene = Scene(seed=1, duration_s=2, fps=1, events=())
    video = Video.open(write_film(scene, tmp_path / "film.mp4"))
    trajectory = make_trajectory(replace(make_task(), video=str(video.path)))
    whole = Frame(video_id=video.id, timestamp_s=1.0, sha256="", width=192, height=192)
    part = replace(whole, box=(0.25, 0.5, 0.5, 0.75), width=48, height=48)
    turn = replace(trajectory.turns[0], context_frames=(whole, part), observations=())
    trajectory = replace(trajectory, turns=(turn,))
    thumbs, problems = thumbnails([trajectory])
    assert not problems and set(thumbs) == {thumb_key(whole), thumb_key(part)}
    assert thumbs[thumb_key(whole)] != thumbs[thumb_key(part)]
    assert all(uri in build_page([trajectory], thumbs) for uri in thumbs.values())
