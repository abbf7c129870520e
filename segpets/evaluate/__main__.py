"""The command: `python -m segpets.evaluate run=latest`."""

from segpets.cli.command import run_command


def main() -> None:
    """Runs the command."""
    run_command("evaluate", example="python -m segpets.evaluate run=latest", needs="run")


if __name__ == "__main__":
    main()
