"""From the command line to a command: Hydra, help, and errors in words."""

import importlib.util
import sys

if not all(map(importlib.util.find_spec, ("omegaconf", "torch"))):
    sys.exit(
        f"error: this Python ({sys.executable}) has not what segpets needs: "
        "source .venv/bin/activate, or make train"
    )
