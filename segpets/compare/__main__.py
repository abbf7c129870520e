"""The command: `python -m segpets.compare runs=logs/train/multiruns/first`."""

from segpets.cli.command import run_command


def main() -> None:
    """Runs the command."""
    run_command("compare", example="python -m segpets.compare runs=logs/train/multiruns/first")


if __name__ == "__main__":
    main()
