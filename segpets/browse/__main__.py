"""The command: `python -m segpets.browse data=pets_mini doctor=true`."""

from segpets.cli.command import run_command


def main() -> None:
    """Runs the command."""
    run_command("browse", example="python -m segpets.browse data=pets_mini doctor=true")


if __name__ == "__main__":
    main()
