"""Says how far a sweep is: `python -m segpets.sweep status=logs/train/multiruns/first`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from segpets.cli import run_command
from segpets.errors import UserError

if TYPE_CHECKING:
    from segpets.jobs import Standing

log = logging.getLogger("segpets.sweep")


def sweep(cfg: DictConfig) -> Standing:
    """Looks at a sweep's folder; changes nothing.

    Args:
        cfg: The composed config of `conf/sweep.yaml`.

    Raises:
        UserError: It is no sweep's folder.
    """
    from segpets.jobs import State, duration, failures, standing
    from segpets.report.table import as_text, jobs_table
    from segpets.run import holder_of, shown, sweep_folder

    folder, log_dir = Path(str(cfg.status)).expanduser(), Path(cfg.train_log_dir)
    if not folder.is_dir():
        named = sweep_folder(str(cfg.status), log_dir)
        if named is None:
            raise UserError(
                f"status={cfg.status}: there is no folder {folder.absolute()}, and no sweep of "
                f"that name in {log_dir / 'multiruns'}"
            )
        folder = named
    now = standing(folder)
    if not now.states:
        raise UserError(
            f"status={cfg.status}: {folder} holds no jobs: give the folder of a sweep, such as "
            "logs/train/multiruns/NAME"
        )
    rows = []
    for name, state in now.states.items():
        summary, words = now.summaries[name], []
        if (score := now.score(name)) is not None:
            words.append(f"{score:.4f}")
        if "seconds" in summary:
            words.append(duration(summary["seconds"]))
        if state == State.RUNNING:
            words.append(holder_of(folder / name) or "")
        rows.append((now.labels[name], str(state), ", ".join(words)))
    log.info("%s", as_text(jobs_table(rows, title=f"{shown(folder)}: {now.metric}")))
    for line in failures(now, folder, list(now.states)):
        log.info("%s", line)
    log.info("%s", now)
    return now


def main() -> None:
    """The command."""
    example = "python -m segpets.sweep status=logs/train/multiruns/first"
    run_command(sweep, name="sweep", example=example)


if __name__ == "__main__":
    main()
