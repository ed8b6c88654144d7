"""What the agent's tests stand on: tiny checkpoints of every family, a film of grey and red, an encoder that sees colours."""

from __future__ import annotations

from pathlib import Path

import pytest
from colour_films import ColourEncoder
from colour_films import red_film as film
from tiny_checkpoints import SHORT_TEMPLATE, checkpoint, family, family_template, make_processor, store

__all__ = ["checkpoint", "family", "film", "store"]

BUSY_S = 600
"""A test's limit in this room: importing transformers alone takes half a minute on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of this room that name no limit of their own get `BUSY_S`."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(BUSY_S))


@pytest.fixture(scope="session", params=["family", "short"])
def processor(request):
    return make_processor(family_template() if request.param == "family" else SHORT_TEMPLATE)


@pytest.fixture(scope="session")
def encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture(scope="session")
def renderer():
    """Of the family whose template is short: for tests of the loop."""
    from playhead.agent.renderers.qwen3vl import Qwen3VLRenderer

    return Qwen3VLRenderer(make_processor(SHORT_TEMPLATE))
