"""The types of the fixtures in conftest.py."""

import subprocess
from collections.abc import Callable

from lightning.pytorch import Callback

from segpets.train import Result

Tiny = Callable[..., list[str]]
Train = Callable[..., Result]
Command = Callable[..., subprocess.CompletedProcess[str]]
TakePart = Callable[[Callback], None]
