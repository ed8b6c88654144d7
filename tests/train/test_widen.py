"""A trained checkpoint with a vocabulary for more: what it knew stays, what is new begins apart."""

from pathlib import Path

import torch
from playhead.agent.embedded import checkpoint_dir
from playhead.train.embedded.model import write_widened
from torch.nn.functional import cosine_similarity
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

NEW = ("zeppelin", "walnut", "quartz")


def test_known_tokens_keep_their_embedding_and_new_ones_begin_apart(tmp_path: Path) -> None:
    text = [f"{word}, {word}" for word in NEW for _ in range(300)]
    write_widened(tmp_path, checkpoint_dir(), checkpoint_dir(), text)
    folders = (checkpoint_dir(), tmp_path)
    before, after = (Qwen3VLForConditionalGeneration.from_pretrained(f, dtype=torch.float32) for f in folders)
    old, new = (AutoTokenizer.from_pretrained(f) for f in folders)
    old_rows, new_rows = (m.model.language_model.embed_tokens.weight.data for m in (before, after))
    known, vocabulary = old.get_vocab(), new.get_vocab()
    both = [t for t in vocabulary if t in known]
    assert len(both) > 400
    assert torch.equal(new_rows[[vocabulary[t] for t in both]], old_rows[[known[t] for t in both]])

    def row(word: str) -> torch.Tensor:
        (place,) = new.encode(word, add_special_tokens=False)
        assert new.convert_ids_to_tokens(place) not in known
        return new_rows[place]

    for one, other in zip(NEW, (*NEW[1:], NEW[0]), strict=True):
        assert cosine_similarity(row(one), row(other), dim=0) < 0.5, "else they would never be told apart"
        assert cosine_similarity(row(one), row(f" {one}"), dim=0) > 0.5, "the same word"
    for (name, a), (_, b) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        assert "embed_tokens" in name or torch.equal(a, b), name
