"""
Trains the small agents of ``docs/agents``, and writes their exports, their cards and the page that lists them.

``python benchmarks/agents.py`` trains with the zoo's hyper-parameters and evaluates. Finished runs in ``--logs`` are
skipped. Each agent is the best model of the evaluations during its training.
"""

import argparse
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_mirl.zoo.command import main
from sb3_mirl.zoo.model_card import Evaluation, write_agent
from sb3_mirl.zoo.register import ALGORITHMS
from sb3_mirl.zoo.runs import Run

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "agents"
#: Algorithm and environment
AGENTS = (("mirl", "CartPole-v1"), ("mirl", "Acrobot-v1"))
SEED = 0
TRAINING = ["--seed", str(SEED), "--eval-freq", "5000", "--eval-episodes", "20", "--num-threads", "1", "--verbose", "0"]
#: Of the final evaluation; evaluations during the training have the run's seed
N_EPISODES, EVALUATION_SEED = 100, 1000

PAGE = """# Trained agents

Each file holds tensors and JSON, and loading it runs no code of the file. Its card says how to load it, how to train it, and
what its ρ is. `python benchmarks/agents.py` trained these agents with the hyper-parameters of `hyperparams/`, one run of each.
Each agent is the best model of the evaluations during its run. The returns are from {n_episodes} further episodes. The state
of the optimiser is left out.

| agent | environment | mean return | file |
|---|---|---:|---|
{rows}

```{{toctree}}
:hidden:

{documents}
```
"""


def trained_run(algorithm: str, env: str, logs: str) -> Run:
    """The finished run; it is trained if there is none."""
    if main(["train", "--algo", algorithm, "--env", env, "-f", logs, *TRAINING, "--resume"]) != 0:
        raise SystemExit(f"{algorithm} on {env} was not trained")
    run = Run.newest(logs, algorithm, env, SEED)
    assert run is not None and run.finished
    return run


def write(algorithm: str, env: str, logs: str) -> None:
    """The folder of one agent."""
    run = trained_run(algorithm, env, logs)
    model = ALGORITHMS[algorithm].load(run.folder / "best_model.zip", device="cpu")
    kwargs: dict[str, Any] = run.args["env_kwargs"] or {}
    returns = evaluate_policy(model, make_vec_env(env, seed=EVALUATION_SEED, env_kwargs=kwargs), N_EPISODES)
    # Half of the file, which acting does not need
    model.policy.optimizer.state.clear()
    write_agent(
        model, FOLDER / f"{algorithm}-{env}", run.args, run.hyperparams, Evaluation(*returns, N_EPISODES, EVALUATION_SEED)
    )


def page() -> str:
    """The page that lists the agents, from their cards."""
    rows, folders = [], sorted(folder.parent for folder in FOLDER.glob("*/README.md"))
    for folder in folders:
        card = ModelCard.load(folder / "README.md").data
        (result,) = card.eval_results
        file = f"{folder.name}/{folder.name}.safetensors"
        value = result.metric_value.replace("+/-", "±")
        rows.append(f"| [{card.model_name}]({folder.name}/README.md) | {result.dataset_name} | {value} | [download]({file}) |")
    documents = "\n".join(f"{folder.name}/README" for folder in folders)
    return PAGE.format(n_episodes=N_EPISODES, rows="\n".join(rows), documents=documents)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", default="logs/agents", help="the folder of the runs")
    args = parser.parse_args()
    for algorithm, env in AGENTS:
        write(algorithm, env, args.logs)
    (FOLDER / "index.md").write_text(page(), "utf-8")
