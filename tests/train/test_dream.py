"""Dreams: what the agent would have recorded, and what the oracle makes of it."""

import re
from collections import defaultdict
from itertools import pairwise

import pytest
from playhead.core.nouns import Answer
from playhead.core.scoring import is_right, parse_spans
from playhead.train.embedded.codes import decode_code
from playhead.train.embedded.dream import JUMP_FRAMES, MINUTES, Dreamer
from playhead.world.questions import KINDS, make_tasks
from playhead.world.script import HELD_OUT_SEED, make_cast


@pytest.fixture(scope="module")
def dreams(renderer):
    dreamer = Dreamer(renderer, direct_share=0.0, slips=0.3)
    return [d for seed in range(30) for d in dreamer.dreams(seed)]


def test_placeholders_fit_frames_and_none_is_trained_on(dreams, renderer):
    for dream in dreams:
        assert len(dream.token_ids_T) == len(dream.loss_mask_T)
        images = [t == renderer.image_token_id for t in dream.token_ids_T]
        assert sum(images) == 4 * len(dream.frames_F) == 4 * len(dream.codes_F)
        assert not any(m and i for m, i in zip(dream.loss_mask_T, images, strict=True))


def test_each_frame_carries_the_code_of_what_is_on_screen(dreams):
    names = set()
    for dream in dreams:
        for code in dream.codes_F:
            percept = decode_code(code)
            names.add(None if percept is None else (percept.shape, percept.colour))
    assert None in names and len(names) > 20


def test_what_is_trained_on_is_assistant_text_only(dreams, renderer):
    for dream in dreams:
        said = [t for t, m in zip(dream.token_ids_T, dream.loss_mask_T, strict=True) if m]
        text = renderer.decode(said)
        assert "<tool_response>" not in text and "<|im_start|>" not in text
        assert text.endswith("<|im_end|>")


def test_a_slip_is_not_trained_on_but_its_recovery_is(renderer):
    dreams = [d for seed in range(40) for d in Dreamer(renderer, direct_share=0.0, slips=1.0).dreams(seed)]
    slipped = [d for d in dreams if d.kind == "when" and _calls(renderer, d, 0) > 0]
    assert slipped
    for dream in slipped:
        said = renderer.decode([t for t, m in zip(dream.token_ids_T, dream.loss_mask_T, strict=True) if m])
        assert "<answer>" in said


def _calls(renderer, dream, mask: int) -> int:
    text = renderer.decode([t for t, m in zip(dream.token_ids_T, dream.loss_mask_T, strict=True) if m == mask])
    return len(re.findall(r"<tool_call>\n\{", text))


@pytest.mark.parametrize("habits", [{}, {"checks": 3}, {"guesses": 1.0}])
def test_the_oracle_is_right_in_nearly_every_dream(renderer, habits):
    """Real searches miss; what is left of wrong answers comes from there. A thorough teacher is as right as another, and one
    that guesses is right because it knows."""
    hits, total = defaultdict(int), defaultdict(int)
    dreamer = Dreamer(renderer, direct_share=0.0, **habits)
    for seed in range(60):
        tasks = {t.kind: t for t in make_tasks(_cast_of(seed), "dream.mp4", "dream")}
        for dream in dreamer.dreams(seed):
            if dream.kind not in tasks:
                continue
            text = renderer.decode(dream.token_ids_T)
            answer = text.rsplit("<answer>", 1)[1].split("</answer>")[0]
            total[dream.kind] += 1
            hits[dream.kind] += is_right(tasks[dream.kind], Answer(text=answer))
    assert set(total) == {"attribute", "motion", "first", "count", "when", "after", "digit"}
    assert sum(hits.values()) / sum(total.values()) >= 0.95
    assert all(hits[k] / total[k] >= 0.85 for k in total), {k: hits[k] / total[k] for k in total}


def test_a_teacher_that_guesses_takes_no_closer_look(renderer):
    """Nor does it go to a wrong hit on purpose."""
    dreamer = Dreamer(renderer, direct_share=0.0, slips=1.0, guesses=1.0)
    dreams = [d for seed in range(6) for d in dreamer.dreams(seed) if d.kind in ("motion", "when", "digit", "after")]
    said = [renderer.decode(d.token_ids_T).split("<|im_start|>assistant", 1)[1] for d in dreams]
    assert said and not any("temporal_zoom" in text for text in said)


def _cast_of(seed: int):
    import random

    return make_cast(seed, random.Random(f"dream-{seed}").uniform(*MINUTES))


def test_in_a_jump_the_second_before_tells_nothing(dreams, renderer):
    """Where an object is then says no more of where it is now than chance does, unlike in an episode."""
    follows, same = 0, 0
    for dream in dreams:
        text = renderer.decode(dream.token_ids_T)
        if dream.kind != "drill" or "Where are they?" not in text or "Before:" not in text:
            continue
        assert len(dream.frames_F) == JUMP_FRAMES
        said = re.findall(r"^(?:<think>)?\d+ (none|.* x(\d) y(\d))$", text, re.MULTILINE)
        assert len(said) == JUMP_FRAMES
        for (a, *before), (b, *now) in pairwise(said):
            follows += "none" not in (a, b)
            same += "none" not in (a, b) and before == now
        for (line, x, y), code in zip(said, dream.codes_F, strict=True):
            percept = decode_code(code)
            assert (percept is None) == (line == "none")
            assert percept is None or (percept.x, percept.y) == (int(x), int(y))
    assert follows > 200 and same / follows < 0.12


def test_cited_evidence_can_be_read_back(dreams, renderer):
    cited = [re.search(r"<evidence>(.*?)</evidence>", renderer.decode(d.token_ids_T)) for d in dreams if d.kind in KINDS]
    found = [m for m in cited if m]
    assert len(found) > 0.9 * len(cited)
    assert all(parse_spans(m[1], "dream") for m in found)


def test_held_out_seeds_are_refused(renderer):
    with pytest.raises(ValueError, match="held out"):
        Dreamer(renderer).dreams(HELD_OUT_SEED)
