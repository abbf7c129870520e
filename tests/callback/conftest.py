from typing import Any

import pytest
from fixture_types import TakePart
from lightning.pytorch import Callback

from segpets.build import objects as building


@pytest.fixture
def take_part(monkeypatch: pytest.MonkeyPatch) -> TakePart:
    """take_part(callback) adds a callback, before all others, to the trainings of a test."""

    def add(callback: Callback) -> None:
        build = building.build

        def with_it(node: Any, key: str, **kwargs: Any) -> Any:
            if key == "trainer":
                kwargs["callbacks"] = [callback, *kwargs["callbacks"]]
            return build(node, key, **kwargs)

        monkeypatch.setattr(building, "build", with_it)

    return add
