"""`segpets COMMAND ...` or `python -m segpets COMMAND ...`: runs `segpets.COMMAND`."""

import importlib
import sys

from segpets.cli.explain import fail
from segpets.errors import did_you_mean

COMMANDS = (
    *("train", "browse", "sweep", "compare"),
    *("evaluate", "predict", "export", "benchmark"),
)
USAGE = f"""usage: segpets COMMAND [GROUP=OPTION ...] [KEY=VALUE ...]
commands: {", ".join(COMMANDS)}
`segpets COMMAND --help` tells more."""


def main() -> None:
    """Runs the command that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(USAGE)
        return
    command = sys.argv.pop(1)
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS)
        fail(f"{command} is no command of segpets.{hint}\n{USAGE}")
    importlib.import_module(f"segpets.{command}.__main__").main()


if __name__ == "__main__":
    main()
