"""SB3's zips are read without running code of them."""

import base64
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch as th
from exports import Bomb, zip_with
from probes import TwoArms

from sb3_mirl import MIRL, CheckpointCallback, load_prior
from sb3_mirl.cli.main import main
from sb3_mirl.mirl.priors import inspect_file


@pytest.mark.parametrize(
    "crafted, message",
    [
        ({"prior": th.zeros(1, dtype=th.float64).expand(10**9)}, "prior must have at most 1048576 elements"),
        ({"beta": th.zeros(1, dtype=th.float64).expand(10**9)}, "beta a number"),
        ({"other": bytearray(1)}, "policy.pth must hold weights only, but has a bytearray"),
    ],
)
def test_a_zip_with_tensors_that_say_they_are_large_is_refused(crafted, message, saved, trained, tmp_path):
    th.save({**trained.policy.state_dict(), **crafted}, tmp_path / "policy.pth")
    path = zip_with(saved, tmp_path / "crafted.zip", {"policy.pth": (tmp_path / "policy.pth").read_bytes()})
    assert path.stat().st_size < 100_000
    for function in (inspect_file, load_prior):
        with pytest.raises(ValueError, match=message):
            function(path)


def test_a_zip_with_entries_that_expand_or_nest_is_refused(saved, tmp_path):
    zip_with(saved, tmp_path / "deep.zip", {"data": "[" * 500 + "]" * 500})
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", " " * (2**26 + 1))
        archive.writestr("policy.pth", b"")
    for name, message in {"deep": "nested at most", "bomb": "is compressed, and must have at most"}.items():
        with pytest.raises(ValueError, match=message):
            inspect_file(tmp_path / f"{name}.zip")


def test_a_pickle_inside_the_data_of_a_zip_is_not_decoded(saved, tmp_path, capsys):
    marker = tmp_path / "marker"
    data = json.loads(zipfile.ZipFile(saved).read("data"))
    data["observation_space"][":serialized:"] = base64.b64encode(pickle.dumps(Bomb(marker))).decode()
    crafted = zip_with(saved, tmp_path / "crafted.zip", {"data": json.dumps(data)})
    assert main(["inspect", str(crafted)]) == 0 and "gymnasium.spaces.box.Box" in capsys.readouterr().out
    with pytest.raises(ValueError, match="it looks like a zip of SB3's save"):
        MIRL.load_exported(crafted)
    assert not marker.exists()
    with pytest.raises(Exception):  # noqa: B017 (None is no observation space)
        MIRL.load(crafted)
    assert marker.exists()


def test_a_pickle_in_place_of_the_weights_of_a_zip_is_refused(saved, tmp_path, capsys):
    marker = tmp_path / "marker"
    th.save({"prior": Bomb(marker)}, tmp_path / "policy.pth")
    crafted = zip_with(saved, tmp_path / "crafted.zip", {"policy.pth": (tmp_path / "policy.pth").read_bytes()})
    assert main(["inspect", str(crafted)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "policy.pth is refused by torch's restricted reader" in error and "mkdir" in error
    assert not marker.exists()
    th.load(tmp_path / "policy.pth", weights_only=False)
    assert marker.exists()


def test_a_pickle_in_place_of_an_export_is_refused(tmp_path, capsys):
    marker = tmp_path / "marker"
    crafted = tmp_path / "model.safetensors"
    crafted.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(ValueError, match="it looks like a pickle, which would run code"):
        MIRL.load_exported(crafted)
    assert main(["inspect", str(crafted)]) == 2 and "looks like a pickle" in capsys.readouterr().err
    assert not marker.exists()
    pickle.loads(crafted.read_bytes())
    assert marker.exists()


def test_a_checkpoint_is_found_without_its_suffix(tmp_path):
    """Beside its zip there is a file .safetensors that is no export."""
    model = MIRL("MlpPolicy", TwoArms(), learning_starts=5, buffer_size=50, policy_kwargs={"net_arch": [4]})
    model.learn(20, CheckpointCallback(20, tmp_path))
    assert (tmp_path / "rl_model_20_steps.safetensors").exists()
    np.testing.assert_array_equal(load_prior(tmp_path / "rl_model_20_steps"), model.prior)
