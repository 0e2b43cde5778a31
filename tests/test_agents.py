"""The trained agents of ``docs/agents``: small files, loaded without code, which reach the return that their card states."""

import math
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from sb3_mirl.mirl.priors import inspect_file
from sb3_mirl.zoo.register import ALGORITHMS

FOLDER = Path(__file__).parents[1] / "docs" / "agents"
AGENTS = sorted(card.parent for card in FOLDER.glob("*/README.md"))
MAX_BYTES = 200_000


@pytest.fixture(params=AGENTS, ids=lambda folder: folder.name)
def agent(request):
    return request.param


def stated(folder):
    """Mean and standard deviation of the returns in the metadata of a card."""
    (result,) = ModelCard.load(folder / "README.md").data.eval_results
    return map(float, result.metric_value.split(" +/- "))


def test_page_lists_all_agents():
    page = (FOLDER / "index.md").read_text("utf-8")
    assert AGENTS and set(re.findall(r"\((\S+)/README\.md\)", page)) == {folder.name for folder in AGENTS}
    for folder in AGENTS:
        mean, std = stated(folder)
        assert f"| {mean:.2f} ± {std:.2f} | [download]({folder.name}/{folder.name}.safetensors) |" in page


def test_files_are_small_and_hold_data_only(agent):
    (file,) = (path for path in agent.iterdir() if path.name != "README.md")
    assert file.suffix == ".safetensors" and file.stat().st_size <= MAX_BYTES
    ALGORITHMS[agent.name.partition("-")[0]].load_exported(file, device="cpu")


def test_prior_of_the_card_is_that_of_the_file(agent):
    found = inspect_file(agent / agent.name)
    text = (agent / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| [^|]+ \| (\d+) \| ([01]\.\d{4}) \|$", text, re.MULTILINE))
    assert rows == {str(action): f"{share:.4f}" for action, share in enumerate(found["prior"])}


@pytest.mark.slow
def test_python_of_the_card_reaches_the_stated_return(agent, monkeypatch):
    """Up to four standard errors, because other processors and versions round differently."""
    monkeypatch.chdir(agent)
    (code,) = re.findall(r"```python\n(.*?)```", (agent / "README.md").read_text("utf-8"), re.DOTALL)
    names = {}
    exec(code, names)
    mean, std = stated(agent)
    n_episodes = int(re.search(r"evaluate_policy\(model, env, (\d+)", code)[1])
    assert abs(names["mean"] - mean) <= 4 * std / math.sqrt(n_episodes) + 0.005
