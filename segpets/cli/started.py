"""Finds out whether torchrun or srun has started several processes of one training.

Each of them has the same command line. Process 0 answers for all: it checks the words, chooses the
run directory, and logs; the others follow it silently.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Final

from segpets.cli.explain import fail
from segpets.cli.suggest import quoted
from segpets.errors import UserError
from segpets.run.place import Place
from segpets.run.ranks import Ranks, join

OF_TORCHRUN: Final = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK"),
    *("MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_USE_AGENT_STORE"),
)
"""By which the processes of one training find each other."""
NO_SWEEP: Final = (
    "torchrun and srun start the processes of one training, and this is a sweep: start it by "
    "itself (python -m segpets.train -m ...), or each of its jobs by torchrun"
)
_TORCHRUN: Final = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SRUN: Final = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_NODELIST")
_TOGETHER: Final = re.compile(
    r"\+{0,2}(trainer=ddp\w*|trainer\.strategy=\W?(ddp|fsdp).*|resume=(?!null$).+)"
)
"""Words by which processes train together; a run that goes on can only be one training."""


def join_others(name: str, argv: Sequence[str]) -> Ranks | None:
    """Joins the other processes of one training; None if this one is by itself.

    torchrun's always belong together. Those of srun do if the trainer is one for several
    processes, as in trainer=ddp: else each is a training of its own.
    """
    if name != "train":
        return None
    place = place_by_torchrun(os.environ)
    by_torchrun = place is not None
    if place is None and any(_TOGETHER.fullmatch(word) for word in argv):
        place = place_by_srun(os.environ)
    if place is None:
        return None
    try:
        ranks = join(place, hosts_store=not by_torchrun)
    except UserError as error:
        fail(str(error))
    if not by_torchrun:
        os.environ.update(_in_torchruns_words(place, os.environ))
    return ranks


def place_by_torchrun(environ: Mapping[str, str]) -> Place | None:
    """Reads what torchrun says; None unless it has started this process.

    Its variables alone aren't enough: Kubernetes and others set them around single processes.
    Source: https://docs.pytorch.org/docs/stable/elastic/run.html
    """
    if not {*_TORCHRUN, "TORCHELASTIC_RUN_ID"} <= environ.keys():
        return None
    rank, world, local, address, port = (environ[key] for key in _TORCHRUN)
    attempt = int(environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    machines = int(environ.get("GROUP_WORLD_SIZE", 1))
    return Place(
        "torchrun", int(rank), int(world), int(local), address, int(port), attempt, machines
    )


def place_by_srun(environ: Mapping[str, str]) -> Place | None:
    """Reads what srun says of its step; None in a batch script, or for a step of one process.

    Source: https://slurm.schedmd.com/srun.html, output environment variables.
    """
    if not set(_SRUN) <= environ.keys() or int(environ["SLURM_STEP_NUM_TASKS"]) == 1:
        return None
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    rank, world = int(environ["SLURM_PROCID"]), int(environ["SLURM_STEP_NUM_TASKS"])
    machines = int(environ.get("SLURM_STEP_NUM_NODES", 1))
    if world % machines:
        fail(
            f"srun started {world} processes on {machines} machines: each machine needs equally "
            "many (srun --ntasks-per-node=N)"
        )
    first = SLURMEnvironment.resolve_root_node_address(environ["SLURM_STEP_NODELIST"])
    step = int(environ.get("SLURM_JOB_ID", 0)) + 7 * int(environ.get("SLURM_STEP_ID", 0))
    return Place(
        by="srun",
        rank=rank,
        world=world,
        local_world=world // machines,
        address=environ.get("MASTER_ADDR", first),
        port=int(environ.get("MASTER_PORT", 15000 + step % 10000)),
    )


def follow(ranks: Ranks) -> list[str]:
    """Waits for the leader's run directory.

    Returns:
        The overrides by which Hydra works there, and writes and says nothing.
    """
    logging.getLogger().addHandler(logging.NullHandler())  # or warnings would go to the terminal
    logging.captureWarnings(True)
    logs = ["hydra.job_logging.root=null", "hydra.hydra_logging.root=null"]
    return [f"hydra.run.dir={quoted(ranks.run().folder)}", "hydra.output_subdir=null", *logs]


def _in_torchruns_words(place: Place, environ: Mapping[str, str]) -> dict[str, str]:
    """Says the place as torchrun would, which PyTorch and Lightning understand.

    The process group then meets at the store that is there.
    """
    return {
        "RANK": str(place.rank),
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "WORLD_SIZE": str(place.world),
        "LOCAL_WORLD_SIZE": str(place.local_world),
        "GROUP_RANK": environ.get("SLURM_NODEID", "0"),
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
        "TORCHELASTIC_RUN_ID": environ.get("SLURM_JOB_ID", "srun"),
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
