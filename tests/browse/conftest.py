from pathlib import Path

import pytest
from pet_folder import PetFolder


@pytest.fixture
def pets(tmp_path: Path) -> PetFolder:
    return PetFolder(tmp_path / "pets", trainval=4)
