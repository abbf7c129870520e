"""What each benchmark writes beside its numbers: where, and by what, they were measured."""

import json
from pathlib import Path
from typing import Any

import torch

from segpets.hardware import cpu_name, device_name
from segpets.run.versions import versions


def write_facts(file: Path | None, **numbers: Any) -> None:
    """Writes numbers, the machine's device, threads, commit and versions as JSON, if asked to.

    Where something else computed, `device` among the numbers says so.
    """
    if file is None:
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    place: dict[str, Any] = {"device": device_name(device), "cpu": cpu_name()}
    place["threads"] = torch.get_num_threads()
    facts = {**place, "versions": versions(), **numbers}
    file.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
