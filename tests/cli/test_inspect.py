"""sb3-mirl inspect."""

import json
import zipfile

import pytest
from exports import zip_with
from stable_baselines3 import DQN

from sb3_mirl.cli.main import main
from sb3_mirl.mirl.priors import inspect_file


@pytest.mark.parametrize("kind", ["exported", "saved"])
def test_inspect_shows_the_model(kind, trained, request, capsys):
    path = str(request.getfixturevalue(kind))
    assert main(["inspect", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["algorithm"], found["beta"], found["prior"]) == ("MIRL", trained.beta, trained.prior.tolist())
    assert found["action_names"] == ["NOOP", "FIRE"] and found["training"]["num_timesteps"] == 60
    assert found["arguments"]["prior_lr"] == 0.1 and found["versions"]
    assert main(["inspect", path]) == 0
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    shown = [line for line in lines if line[0] in ("NOOP", "FIRE")]
    order = sorted(zip(trained.prior, ["NOOP", "FIRE"], strict=True), reverse=True)
    assert [line[:2] for line in shown] == [[name, f"{value:.6f}"] for value, name in order]
    assert len(shown[0][2]) == 30 and "beta" in text and "float32" in text


def test_inspect_refuses_other_files_in_one_line(tmp_path, capsys, saved):
    DQN("MlpPolicy", "CartPole-v1", buffer_size=10).save(tmp_path / "dqn.zip")
    assert inspect_file(tmp_path / "dqn.zip")["algorithm"] is None
    assert main(["inspect", str(tmp_path / "dqn.zip")]) == 0 and "not one of sb3_mirl" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("data", "{}")
    content = saved.read_bytes()
    files = {
        "other.zip": None,
        "missing": None,
        ".": None,
        "cut.zip": content[:-200],
        "holed.zip": content[:2000] + content[3000:],
    }
    files["data.zip"] = zip_with(saved, tmp_path / "data.zip", {"data": "[1, 2"}).read_bytes()
    files["list.zip"] = zip_with(saved, tmp_path / "list.zip", {"data": "[1, 2]"}).read_bytes()
    files["weights.zip"] = zip_with(saved, tmp_path / "weights.zip", {"policy.pth": b"nothing"}).read_bytes()
    for name, data in files.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        assert main(["inspect", str(tmp_path / name)]) == 2, name
        out, err = capsys.readouterr()
        assert not out and err.startswith("sb3-mirl inspect: ") and err.count("\n") == 1, name
