"""The config reference: every group, option and key of conf/, explained by the comments there.

`python scripts/reference.py` prints it; `make docs` makes the page of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

CONF = Path(__file__).parents[1] / "conf"
WIRING = {"_target_", "_partial_", "_convert_", "defaults"}
"""Keys that say what an option is made of; the page shows them apart."""


@dataclass(frozen=True)
class Key:
    """A key of a config.

    Attributes:
        path: Its name with those of the tables that it stands in: `loss.weights.overlap`.
        value: Its default, as YAML.
        meaning: What the comment says of it; empty where there is none.
    """

    path: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Config:
    """A file of conf/.

    Attributes:
        group: The group, such as `model`; empty for the config of a command.
        option: The option, or the command.
        example: A command that uses it.
        about: What the comment at its head says.
        target: The class or function that it makes, if it makes one.
        keys: What can be set.
    """

    group: str
    option: str
    example: str
    about: str
    target: str
    keys: list[Key]


def read(file: Path) -> Config:
    """Reads a config with its comments."""
    lines = file.read_text(encoding="utf-8").splitlines()
    is_global = lines[0].startswith("# @package")
    head = [line.lstrip("# ") for line in _comments(lines[is_global:])]
    group = file.parent.relative_to(CONF).as_posix()
    group = "" if group == "." else group
    root = yaml.compose("\n".join(lines)) or yaml.MappingNode("", [])
    prefix = f"{group}." if group and not is_global and group != "hydra" else ""
    if group.startswith("hydra"):
        prefix = group.replace("/", ".") + "."
    keys = list(_keys(root, prefix, lines)) if isinstance(root, yaml.MappingNode) else []
    top = {k.value: v.value for k, v in root.value} if isinstance(root, yaml.MappingNode) else {}
    return Config(
        group=group,
        option=file.stem,
        example=head[0],
        about=" ".join(word for word in head[1:] if word),
        target=str(top.get("_target_", "")),
        keys=keys,
    )


def _comments(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("#"):
            return
        yield line


def _keys(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[Key]:
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        if key.value in WIRING:
            continue
        meaning = _meaning(key, value, lines)
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            inner = list(_keys(value, f"{path}.", lines))
            if meaning and inner:
                yield Key(path, "", meaning)
            yield from inner
        else:
            text = _text(value, lines)
            if not (text.startswith("${data.") and ".module." in path):  # what is above, handed on
                yield Key(path, text, meaning)


def _meaning(key: yaml.Node, value: yaml.Node, lines: list[str]) -> str:
    """The comment behind a key, or on the lines above it."""
    number: int = key.start_mark.line
    on_one_line = value.end_mark.line == number
    begin: int = value.end_mark.column if on_one_line else key.end_mark.column + 1
    _, hash_, behind = lines[number][begin:].partition("# ")
    if hash_:
        return behind.strip()
    above: list[str] = []
    while number > 0 and lines[number - 1].strip().startswith("# "):
        number -= 1
        above.insert(0, lines[number].strip().removeprefix("# "))
    return " ".join(above) if number > 0 else ""  # the head of the file is no key's


def _text(value: yaml.Node, lines: list[str]) -> str:
    if isinstance(value, yaml.ScalarNode):
        return f"{value.value}" if value.style is None else f'"{value.value}"'
    if value.start_mark.line == value.end_mark.line:
        begin, end = int(value.start_mark.column), int(value.end_mark.column)
        return f"{lines[value.start_mark.line][begin:end]}"
    plain = yaml.safe_load(yaml.serialize(value))
    names = [
        item.get("_target_", "").rpartition(".")[2] if isinstance(item, dict) else str(item)
        for item in plain
    ]
    return f"[{', '.join(names)}]"


def configs() -> list[Config]:
    """All configs: the commands', that of train first, and then the groups' by their names."""
    files = sorted(CONF.rglob("*.yaml"), key=lambda f: (f.parent != CONF, f.stem != "train", f))
    found = [read(file) for file in files if "local" not in file.parts]
    # What an experiment or a debug option sets is explained where the key comes from.
    known = {
        key.path: key.meaning for config in reversed(found) for key in config.keys if key.meaning
    }
    for config in found:
        for at, key in enumerate(config.keys):
            config.keys[at] = replace(key, meaning=key.meaning or known.get(key.path, ""))
    return found


def unexplained() -> list[str]:
    """The keys that neither a comment of their own explains nor one of a table above them."""
    missing = []
    for config in configs():
        explained = tuple(f"{key.path}." for key in config.keys if key.meaning)
        for key in config.keys:
            if not key.meaning and not key.path.startswith(explained):
                missing.append(f"{config.group}/{config.option}: {key.path}")
    return missing


def defaults() -> dict[str, str]:
    """The options that `segpets.train` takes where none is named, by their groups."""
    entries = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
    return {
        group: f"[{','.join(option)}]" if isinstance(option, list) else option
        for group, option in pairs
        if option is not None
    }


def as_markdown() -> str:
    """The page."""
    lines = [
        "# Configuration",
        "",
        "Every group, every option and every key, made from the comments in `conf/`. On the",
        "command line a key is written with its group: `optimizer.lr=1e-3`. `--cfg job` prints",
        "what a command would use.",
        "",
    ]
    groups = dict.fromkeys(config.group for config in configs())
    taken = defaults()
    for group in groups:
        title = f"`{group}`" if group else "The commands"
        lines += [f"## {title}", ""]
        if group in taken:
            lines += [f"Where none is named, `{group}={taken[group]}`.", ""]
        for config in configs():
            if config.group == group:
                lines += _section(config)
    return "\n".join(lines)


def _section(config: Config) -> list[str]:
    name = f"{config.group}={config.option}" if config.group else f"segpets.{config.option}"
    lines = [f"### `{name}`", ""]
    if config.option.startswith("_"):
        lines[0] = f"### What all options of `{config.group}` have"
    if config.about:
        lines += [config.about, ""]
    if config.target:
        lines += [f"Makes `{config.target}`.", ""]
    lines += [f"    {config.example}", ""]
    if config.keys:
        lines += ["| key | default | meaning |", "|---|---|---|"]
        for key in config.keys:
            value = f"`{key.value}`" if key.value else ""
            lines.append(f"| `{key.path}` | {_cell(value)} | {_cell(key.meaning)} |")
        lines.append("")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    print(as_markdown())
