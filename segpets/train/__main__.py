"""The command: `python -m segpets.train model=segnet loss=soft_iou`."""

from segpets.cli.command import run_command


def main() -> None:
    """Runs the command."""
    run_command("train", example="python -m segpets.train model=segnet loss=soft_iou")


if __name__ == "__main__":
    main()
