"""Hydra finds sweepers in this namespace; see `segpets.sweeping` for what they do.

Every Hydra program of this environment imports this file when it starts, so it imports nothing.
"""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GridSweeper(Sweeper):
    """Runs all combinations of the command line's values, and goes on where it was stopped."""

    hydra_context: HydraContext

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Takes what Hydra has made; see `Sweeper.setup`."""
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Composes all jobs, and launches those that aren't complete."""
        from segpets.sweeping import run_grid

        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
        (combinations,) = BasicSweeper.split_arguments(overrides, None)

        def compose(words: Sequence[str]) -> DictConfig:
            return loader.load_sweep_config(self.config, list(words))

        def launch(jobs: Sequence[Sequence[str]]) -> None:
            self.launcher.launch(jobs, initial_job_idx=0)

        run_grid(self.config, combinations, compose=compose, launch=launch)
