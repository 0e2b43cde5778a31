"""Videos of trainings."""

import os
import shutil
import subprocess

import pytest
from zoo_train import ENV

from sb3_mirl.zoo.command import main
from sb3_mirl.zoo.recordings import checkpoints_once
from sb3_mirl.zoo.workarounds import replaced


def test_the_output_folder_keeps_its_files_and_may_have_any_name(in_runs, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "my $HOME videos"
    folder.mkdir()
    (folder / "thesis.txt").write_text("text")
    # Relative
    output = os.path.relpath(folder)
    assert main(["record-training", "--algo", "sql", "--env", ENV, "-f", "logs", "-n", "5", "-o", output]) == 0
    assert capsys.readouterr().out.endswith(f"The videos are in {folder}\n")
    assert (folder / "thesis.txt").read_text() == "text" and (folder / "training.mp4").stat().st_size > 1000


@pytest.mark.parametrize("algo", ["sql_m", "dqn"])
def test_record_training(algo, in_runs, tmp_path):
    command = ["record-training", "--algo", algo, "--env", ENV, "-f", "logs", "-n", "10", "-o", str(tmp_path)]
    assert main(command) == 0
    assert (tmp_path / "training.mp4").stat().st_size > 1000
    assert len(list(tmp_path.glob("*.mp4"))) >= 4  # all together, and: final, best, checkpoints


def test_record_training_records_each_checkpoint_once(in_runs, tmp_path, monkeypatch):
    steps = [path.stem.split("_")[2] for path in (in_runs / "logs" / "sql" / f"{ENV}_1").glob("rl_model_*.zip")]
    assert len(steps) == 2
    shutil.copytree(in_runs / "logs" / "sql", tmp_path / "logs" / "sql")
    # As of a run that was killed while it wrote a checkpoint
    (tmp_path / "logs" / "sql" / f"{ENV}_1" / "rl_model_1000_steps.safetensors").touch()
    commands = []

    def record(command, **kwargs):
        commands.append(command)
        return 0

    monkeypatch.setattr("sb3_mirl.zoo.command.children_in_this_process", lambda _: replaced(subprocess, call=record))
    command = ["record-training", "--algo", "sql", "--env", ENV, "-f", str(tmp_path / "logs")]
    # Nothing was recorded
    assert main(command) == 2
    recorded = [command[command.index("--load-checkpoint") + 1] for command in commands if "--load-checkpoint" in command]
    assert sorted(recorded) == sorted(steps)


def test_hidden_files_are_hidden_only_while_checkpoints_are_listed(tmp_path):
    names = {"rl_model_5_steps.zip", "rl_model_5_steps.json", "rl_model_2_5_steps.zip", "best_model.zip"}
    for name in names:
        (tmp_path / name).touch()
    with checkpoints_once():
        assert {entry.name for entry in os.scandir(tmp_path)} == {"rl_model_5_steps.zip", "best_model.zip"}
        # What other packages do with os.scandir
        with os.scandir(tmp_path) as entries:
            assert {entry.name for entry in entries} == names
        ((_, _, files),) = os.walk(tmp_path)
        assert set(files) == names
    assert {entry.name for entry in os.scandir(tmp_path)} == names
