"""The command: `python -m segpets.sweep status=logs/train/multiruns/first`."""

from segpets.cli.command import run_command


def main() -> None:
    """Runs the command."""
    run_command("sweep", example="python -m segpets.sweep status=logs/train/multiruns/first")


if __name__ == "__main__":
    main()
