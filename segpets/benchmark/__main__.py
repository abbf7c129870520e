"""The command: `python -m segpets.benchmark model=unet`."""

from segpets.cli.command import run_command


def main() -> None:
    """Runs the command."""
    run_command("benchmark", example="python -m segpets.benchmark model=unet")


if __name__ == "__main__":
    main()
