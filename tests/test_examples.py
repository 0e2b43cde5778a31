"""Each example runs, shortened."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
ARGUMENTS = {
    "demo.py": ["--steps", "2100"],
    "first_run.py": ["--steps", "1300"],
    "atari_pong.py": ["--steps", "150", "--buffer-size", "200", "--learning-starts", "100", "--episodes", "0"],
    "custom_beta.py": ["--steps", "800"],
    "many_seeds.py": ["--steps", "150", "--seeds", "2"],
    "compare.py": ["--steps", "1500", "--seeds", "1", "--env", "CartPole-v1"],
    "transfer_prior.py": [
        *("--source-steps", "180", "--steps", "180", "--learning-starts", "100", "--seeds", "1", "--n-envs", "2"),
        *("--screen-size", "36"),
    ],
}
#: The longest ones of which the tests of the commands and classes that they use are fast
SLOW = {"atari_pong.py", "compare.py", "transfer_prior.py"}
MAKES = {
    "demo.py": "demo/mirl_acrobot.png",
    "first_run.py": "mirl_cartpole.zip",
    "atari_pong.py": "mirl_pong.zip",
    "compare.py": "logs/compare/compare.png",
    "transfer_prior.py": "logs/transfer_prior/transfer_prior.png",
}


def test_every_example_is_tested():
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(ARGUMENTS)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in sorted(ARGUMENTS)])
def test_example(name, tmp_path, run_script):
    finished = run_script(EXAMPLES / name, *ARGUMENTS[name], cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "Warning" not in finished.stderr
    if name == "compare.py":
        *_, dqn, sql, mirl, _, figure = finished.stdout.splitlines()
        assert (dqn[:7], sql[:7], mirl[:8]) == ("| dqn |", "| sql |", "| mirl |") and figure.startswith("figure: ")
    if name == "many_seeds.py":
        assert [line.split()[0] for line in finished.stdout.splitlines()] == ["MIRL:", "SQL:"]
    if name in MAKES:
        assert (tmp_path / MAKES[name]).stat().st_size > 1000
