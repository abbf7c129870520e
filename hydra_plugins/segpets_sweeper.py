"""Hydra finds sweepers in this namespace; see `segpets.sweep.grid` for what they do.

Every Hydra program of this environment imports this file when it starts, so it imports nothing.
"""

import copy
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RememberingRepository:
    """Reads each config file once, and not again for each job: it takes a third of the time.

    Args:
        inner: Hydra's own.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.known: dict[str, Any] = {}

    def load_config(self, config_path: str) -> Any:
        """Gives a copy, since composing works on what it is given."""
        if config_path not in self.known:
            self.known[config_path] = self.inner.load_config(config_path=config_path)
        return copy.deepcopy(self.known[config_path])

    def __deepcopy__(self, memo: Any) -> "RememberingRepository":
        return self

    def __getattr__(self, name: str) -> Any:
        if name in ("inner", "known"):  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.inner, name)


class GridSweeper(Sweeper):
    """Runs all combinations of the command line's values, and goes on where it was stopped."""

    hydra_context: HydraContext

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Takes what Hydra has made; see `Sweeper.setup`."""
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        loader: Any = hydra_context.config_loader
        loader.repository = RememberingRepository(loader.repository)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Composes all jobs, and launches those that aren't complete."""
        from segpets.sweep.grid import run_grid

        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
        (combinations,) = BasicSweeper.split_arguments(overrides, None)

        def compose(words: Sequence[str]) -> DictConfig:
            return loader.load_sweep_config(self.config, list(words))

        def launch(jobs: Sequence[Sequence[str]]) -> None:
            self.launcher.launch(jobs, initial_job_idx=0)

        run_grid(self.config, combinations, compose=compose, launch=launch)


class SearchSweeper(Sweeper):
    """Lets Optuna choose the values of the next jobs by the results of those before.

    Args:
        n_trials: How many jobs there are to be in all, over all starts.
        n_jobs: How many run at once.
        seed: Of what is tried.
        startup_trials: How many are tried at random first.
        prune_after: How many epochs each job may have.
        params: What is searched, by key, in Hydra's syntax of sweeps; the command line adds to it.
    """

    hydra_context: HydraContext

    def __init__(
        self,
        *,
        n_trials: int,
        n_jobs: int,
        seed: int,
        startup_trials: int,
        prune_after: int,
        params: DictConfig | None,
    ) -> None:
        self.options = {
            "n_trials": n_trials,
            "n_jobs": n_jobs,
            "seed": seed,
            "startup_trials": startup_trials,
            "prune_after": prune_after,
        }
        self.params = params or {}

    setup = GridSweeper.setup

    def sweep(self, arguments: list[str]) -> Any:
        """Runs trials until there are enough."""
        from segpets.sweep.search import SearchOptions, run_search

        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        given = {word.lstrip("+").partition("=")[0] for word in arguments}
        words = [f"{key}={value}" for key, value in self.params.items() if key not in given]

        def compose(job: Sequence[str]) -> DictConfig:
            return loader.load_sweep_config(self.config, list(job))

        def launch(first: int, jobs: Sequence[Sequence[str]]) -> None:
            self.launcher.launch(jobs, initial_job_idx=first)

        run_search(
            self.config,
            parser.parse_overrides([*arguments, *words]),
            SearchOptions(**self.options),
            compose=compose,
            launch=launch,
            is_group=lambda key: loader.get_group_options(key) != [],
            optional=[str(key) for key in self.params if key not in given],
        )
