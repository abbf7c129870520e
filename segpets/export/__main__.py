"""The command: `python -m segpets.export run=latest format=onnx`."""

from segpets.cli.command import run_command


def main() -> None:
    """Runs the command."""
    run_command("export", example="python -m segpets.export run=latest format=onnx", needs="run")


if __name__ == "__main__":
    main()
