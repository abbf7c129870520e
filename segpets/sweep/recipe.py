"""Reports the progress of a sweep: `python -m segpets.sweep status=logs/train/multiruns/first`."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from segpets.errors import UserError
from segpets.report.table import as_text, jobs_table
from segpets.run.directory import sweep_folder
from segpets.run.files import shown
from segpets.run.jobs import State
from segpets.run.lock import holder_of
from segpets.run.standing import Standing, duration, failures, standing
from segpets.run.trust import Trust

log = logging.getLogger("segpets.sweep")


def sweep(cfg: DictConfig) -> Standing:
    """Reads the progress of a sweep from its folder; changes nothing.

    Raises:
        UserError: It isn't a sweep's folder.
    """
    folder = _folder(str(cfg.status), Path(cfg.train_log_dir))
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
        if isinstance(seconds := summary.get("seconds"), int | float):
            words.append(duration(seconds))
        if state == State.RUNNING:
            words.append(holder_of(folder / name) or "")
        rows.append((now.labels[name], str(state), ", ".join(words)))
    log.info("%s", as_text(jobs_table(rows, title=f"{shown(folder)}: {now.metric}")))
    for line in failures(now, folder, list(now.states)):
        log.info("%s", line)
    log.info("%s", now)
    return now


def _folder(status: str, log_dir: Path) -> Path:
    """Finds a sweep's folder by its path or its name."""
    folder = Path(status).expanduser()
    named = folder if folder.is_dir() else sweep_folder(status, log_dir)
    if named is None:
        raise UserError(
            f"status={status}: there is no folder {folder.absolute()}, and no sweep of that name "
            f"in {log_dir / 'multiruns'}"
        )
    return named


def main(cfg: DictConfig, trust: Trust) -> None:
    """Runs the command."""
    sweep(cfg)
