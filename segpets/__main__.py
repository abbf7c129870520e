"""`segpets COMMAND ...` and `python -m segpets COMMAND ...`: the same as `python -m segpets.COMMAND`."""

import importlib
import sys

from segpets.cli import fail

COMMANDS = ("train",)


def main() -> None:
    """Runs the command that the first argument names."""
    usage = f"usage: segpets COMMAND [GROUP=OPTION ...] [KEY=VALUE ...]\ncommands: {', '.join(COMMANDS)}"
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(usage)
        return
    command = sys.argv.pop(1)
    if command not in COMMANDS:
        fail(f"{command} is no command of segpets\n{usage}")
    importlib.import_module(f"segpets.{command}").main()


if __name__ == "__main__":
    main()
