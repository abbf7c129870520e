"""The command: `python -m segpets.predict run=latest source=photos output=predicted`."""

from segpets.cli.command import run_command


def main() -> None:
    """Runs the command."""
    run_command(
        "predict",
        example="python -m segpets.predict run=latest source=photos output=predicted",
        needs="run",
    )


if __name__ == "__main__":
    main()
