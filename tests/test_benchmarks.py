"""Scripts that measure speed run to their end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_measurements_for_a_gpu_run_on_a_processor():
    command = [ROOT / "benchmarks" / "gpu.sh", "--device", "cpu", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable})
    assert done.returncode == 0, done.stdout + done.stderr
    tests, solo, joint = done.stdout.split("## ")[1:]
    assert "skipped" in tests or "passed" in tests
    assert "| cartpole | steps/s |" in solo and "MIRL, compiled" in solo
    for name in ("SB3's DQN", "MIRL, compiled", "1 MIRL jointly", "2 MIRL jointly, compiled"):
        assert f"| minatar | {name} |" in joint
