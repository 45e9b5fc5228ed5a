from __future__ import annotations

import pytest
from card_build import Card, items, make_card


@pytest.fixture(scope="session")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    """The card of a build in which everything happens."""
    return make_card(tmp_path_factory.mktemp("build"), items())
