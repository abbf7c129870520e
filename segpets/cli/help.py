"""The text of `--help`. Imports nothing heavy."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

_KEY = re.compile(r"(\w+):([^#]*)(?:#\s*(.*))?")


def help_text(name: str, example: str, config: Path, options: Mapping[str, Sequence[str]]) -> str:
    """Writes the answer to --help: how to call a command, its keys, and the options.

    Args:
        name: The command.
        example: A command line.
        config: The command's YAML file; the comments behind its keys explain them.
        options: All config groups, and their options.
    """
    text = config.read_text(encoding="utf-8")
    chosen = _groups(yaml.safe_load(text)["defaults"])
    own = {key: meaning for key, meaning in _keys(text).items() if key not in chosen}
    listed = {
        group: [*given, *(() if chosen[group] in (None, *given) else [chosen[group]])]
        for group, given in options.items()
        if group in chosen
    }
    width = max(map(len, [*own, *listed]))
    lines = [
        f"python -m segpets.{name} [GROUP=OPTION ...] [KEY=VALUE ...]",
        "",
        f"For example: {example}",
        "",
        "Keys:",
        *(f"  {key:<{width}}  {meaning}" for key, meaning in own.items()),
        "",
        "Groups and their options:",
        *(f"  {group:<{width}}  {', '.join(map(str, of))}" for group, of in listed.items()),
        "",
        "  --cfg job       print the config instead of running it; --resolve fills in references",
        "  -m, --multirun  run each combination of comma-separated values: model=unet,segnet",
        "  --config-dir D  find groups of your own in D, too",
        "  --hydra-help    the other options of Hydra",
    ]
    return "\n".join(lines)


def _keys(text: str) -> dict[str, str]:
    keys = {}
    for line in text.splitlines():
        match = _KEY.fullmatch(line)
        if match and match[1] != "defaults" and match[1] != "task_name":
            value, meaning = match[2].strip(), match[3] or ""
            default = {"???": " (needed)", "null": "", "": "", "{}": ""}.get(value, f" ({value})")
            keys[match[1]] = f"{meaning}{default}"
    return keys


def _groups(defaults: Sequence[str | Mapping[str, object]]) -> dict[str, object]:
    chosen: dict[str, object] = {}
    for entry in defaults:
        if isinstance(entry, Mapping):
            for group, option in entry.items():
                word = group.split()[-1]
                chosen[word] = option if isinstance(option, str) and "@" not in word else None
    return chosen
