"""Manifests that are malformed, copied, or of another run."""

import pytest
from resuming import IGNORED_WARNINGS, SETTINGS

from sb3_mirl import MIRL, CheckpointCallback

pytestmark = IGNORED_WARNINGS


@pytest.mark.parametrize(
    "malformed", [b"", b"{}", b"[]", b'{"format": "sb3_mirl checkpoint", "run": 1}', b"\xff", b"[" * 99999]
)
def test_malformed_manifests_are_named(tmp_path, malformed):
    (tmp_path / "rl_model_5_steps.json").write_bytes(malformed)
    with pytest.raises(ValueError, match=r"all are damaged.*remove rl_model_5_steps\.json"):
        MIRL.resume(tmp_path, "CartPole-v1")
    with pytest.raises(ValueError, match=r"rl_model_5_steps\.json .*Remove these files, or choose another folder"):
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))


def test_manifests_of_another_run_and_copies_are_named(tmp_path):
    for folder in "ab":
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(1000, tmp_path / folder, folder))
    manifest = (tmp_path / "a" / "a_20_steps.json").read_bytes()
    model = MIRL.resume(tmp_path / "b", "CartPole-v1")
    (tmp_path / "b" / "a_20_steps.json").write_bytes(manifest)
    with pytest.raises(ValueError, match=r"(?s)lie \(a_20_steps\.json\).*remove these files"):
        model.learn(40, CheckpointCallback(10, tmp_path / "b"))
    with pytest.raises(ValueError, match=r"holds those of 2: a_20_steps\.json and b_20_steps\.json\. Remove"):
        MIRL.resume(tmp_path / "b", "CartPole-v1")
    (tmp_path / "a" / "copy_steps.json").write_bytes(manifest)
    with pytest.warns(UserWarning, match=r"copy_steps\.json is a copy of a_20_steps\.json.*remove copy_steps"):
        MIRL.resume(tmp_path / "a", "CartPole-v1")
