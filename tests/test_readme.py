"""What the README and CONTRIBUTING.md say, done."""

import re
from pathlib import Path

from fixture_types import Command, Tiny

from segpets.cli.command import groups
from segpets.paths import conf_dir

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_lists_every_group_and_option() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", README, re.MULTILINE)
    shown = {group: set(re.findall(r"`(\w+)`", options)) for group, options in rows}
    for group, options in groups([conf_dir()]).items():
        if group == "paths" or group.startswith("hydra"):  # not chosen, but set
            continue
        for option in set(options) - {"standard"}:
            assert {option, option.removesuffix("_strong")} & shown[group], f"{group}={option}"


def test_the_model_of_the_readme_trains(command: Command, tiny: Tiny, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n# segpets/model/tiny\.py\n(.*?)```", README, re.DOTALL)
    (config,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "tiny.py").write_text(code)
    config = config.replace("segpets.model.tiny.Tiny", "tiny.Tiny")
    (tmp_path / "conf" / "model" / "tiny.yaml").write_text(config)
    done = command("--config-dir", "conf", *tiny("model=tiny", "trainer.max_epochs=1"))
    assert done.returncode == 0, done.stdout
    assert "Tiny" in done.stdout
