"""What torchrun and srun say of a process, and what only looks like it."""

import pytest

from segpets.cli.started import place_by_srun, place_by_torchrun
from segpets.run.place import Place

TORCHRUN = {
    **{"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "1"},
    **{"MASTER_ADDR": "a", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "x"},
    **{"TORCHELASTIC_RESTART_COUNT": "2"},
}
SRUN = {
    **{"SLURM_JOB_ID": "1234567", "SLURM_STEP_ID": "2", "SLURM_PROCID": "3"},
    **{"SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "n[07-08,11]"},
    **{"SLURM_STEP_NUM_NODES": "2"},
}


def without(variables: dict[str, str], *names: str) -> dict[str, str]:
    return {key: value for key, value in variables.items() if key not in names}


def test_torchrun_says_which_process_this_is() -> None:
    assert place_by_torchrun(TORCHRUN) == Place("torchrun", 5, 8, 4, "a", 29500, attempt=2)


@pytest.mark.parametrize("missing", ["TORCHELASTIC_RUN_ID", "RANK", "MASTER_PORT"])
def test_variables_that_others_set_around_a_process_are_not_torchruns(missing: str) -> None:
    assert place_by_torchrun(without(TORCHRUN, missing)) is None


def test_srun_says_which_process_this_is() -> None:
    place = place_by_srun(SRUN)
    assert place is not None and not place.leads
    assert (place.rank, place.world, place.local_world, place.address) == (3, 4, 2, "n07")
    other_step = place_by_srun(SRUN | {"SLURM_STEP_ID": "3"})
    assert other_step is not None and other_step.port != place.port


def test_a_batch_script_and_a_step_of_one_process_are_by_themselves() -> None:
    of_the_step = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_NODES")
    assert place_by_srun(without(SRUN, *of_the_step) | {"SLURM_NTASKS": "4"}) is None
    assert place_by_srun(SRUN | {"SLURM_STEP_NUM_TASKS": "1"}) is None


def test_machines_with_unequal_numbers_of_processes_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        place_by_srun(SRUN | {"SLURM_STEP_NUM_TASKS": "5"})
    assert "each machine needs equally many" in capsys.readouterr().err
