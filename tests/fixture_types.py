"""The types of the fixtures in conftest.py."""

import subprocess
from collections.abc import Callable

from fork_server import Forked
from lightning.pytorch import Callback

from segpets.train import Result

Tiny = Callable[..., list[str]]
Train = Callable[..., Result]
Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Forked]
TakePart = Callable[[Callback], None]
