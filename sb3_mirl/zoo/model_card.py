"""
Model cards for agents of our algorithms: :func:`write_agent` writes the export of a trained agent and its card into a folder,
:func:`complete_repository` replaces rl-zoo3's card in the folder that ``push-to-hub`` uploads and adds the export.

A card is a ``README.md`` with the hub's metadata. It says what the agent is, its results, its ρ by action, how to load it
without running code, and how to train it.
"""

import inspect
import json
import shlex
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_sb3 import EnvironmentName

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.text import printable
from sb3_mirl.mirl.priors import inspect_file
from sb3_mirl.zoo.register import ALGORITHMS, OUR_ENVIRONMENTS
from sb3_mirl.zoo.runs import CommandError

MIRL_PAPER = (
    "[Soft Q-Learning with Mutual-Information Regularization](https://openreview.net/forum?id=HyEtjoCqFX) "
    "(Grau-Moya, Leibfried and Vrancx, ICLR 2019)"
)
DECOUPLED_PAPER = "*Decoupling regularization from the action space* (ICLR 2024)"
#: What each algorithm is, with its paper
DESCRIPTIONS = {
    "mirl": f"MIRL is soft Q-learning with a learned action prior ρ: {MIRL_PAPER}.",
    "sql": f"SQL is soft Q-learning with a uniform action prior ρ, a baseline of {MIRL_PAPER}.",
    "sql_decoupled": f"SQLDecoupled is SQL with β multiplied by log₂ of the number of actions: {DECOUPLED_PAPER}.",
    "sql_m": f"SQL_m is soft Q-learning that explores with the learned marginal ρ, a baseline of {MIRL_PAPER}.",
    "dqn_mse": "DQN_MSE is DQN with the squared error in place of the Huber loss: "
    "[Human-level control through deep reinforcement learning](https://doi.org/10.1038/nature14236) (Mnih et al. 2015).",
    "mdqn": "MDQN is [Munchausen DQN](https://arxiv.org/abs/2007.14430) (Vieillard, Pietquin and Geist, NeurIPS 2020).",
}
#: Options of ``train`` that change the agent, beside ``--algo``, ``--env`` and ``--seed``, and rl-zoo3's defaults
OPTIONS: dict[str, Any] = {
    **{"n_timesteps": -1, "hyperparams": None, "env_kwargs": None, "eval_env_kwargs": None, "gym_packages": []},
    **{"conf_file": None, "trained_agent": "", "vec_env": "dummy", "eval_freq": 25000, "eval_episodes": 5, "n_eval_envs": 1},
}
#: Arguments of ``train`` that reveal the author's machine or accounts, with rl-zoo3's defaults. ``command``, the whole command
#: line, exists only with ``--track``
PRIVATE: dict[str, Any] = {
    **{"storage": None, "study_name": None, "tensorboard_log": "", "log_folder": "logs", "optimization_log_path": None},
    **{"wandb_project_name": "sb3", "wandb_entity": None, "wandb_group": None, "wandb_tags": [], "command": ""},
}
#: Hyper-parameters that change what the agent observes: ``make_vec_env`` alone does not make its environment
WRAPPERS = ("env_wrapper", "vec_env_wrapper", "frame_stack", "normalize")
#: Rows of the table of ρ
MAX_ROWS = 32


class Evaluation(NamedTuple):
    """Returns of the episodes in which an agent was evaluated."""

    mean: float
    std: float
    n_episodes: int
    #: Seed of the environment's first reset
    seed: int
    #: Whether the agent acted without exploration
    deterministic: bool = True
    #: Number of environments side by side
    n_envs: int = 1
    #: Arguments of the environment; None: those of ``train``
    env_kwargs: Mapping[str, Any] | None = None


def write_agent(
    model: BaseDQN,
    folder: str | Path,
    args: Mapping[str, Any],
    hyperparams: Mapping[str, Any],
    evaluation: Evaluation,
    repo_id: str | None = None,
) -> Path:
    """
    Export an agent to ``<algorithm>-<environment>.safetensors`` and write its card, ``README.md``.

    :param model: the agent
    :param folder: created if it does not exist; the two files are replaced
    :param args: the arguments of ``train``, as in ``args.yml`` of a run folder
    :param hyperparams: the hyper-parameters, as in ``config.yml`` of a run folder
    :param evaluation: the agent's results
    :param repo_id: of the repository on the Hugging Face hub; None: the card is for a local file
    :return: the path of the export
    :raises ValueError: if a part of the model cannot be exported; the message names it
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # A model that was loaded for playing has another seed, a tiny buffer and no compilation: export those of the training
    defaults, changed = inspect.signature(type(model)).parameters, ("buffer_size", "optimize_memory_usage", "compile_update")
    trained = {name: hyperparams.get(name, defaults[name].default) for name in changed}
    trained |= {"buffer_size": int(trained["buffer_size"]), "seed": args["seed"]}
    export = model.export(folder / f"{args['algo']}-{EnvironmentName(args['env'])}.safetensors", **trained)
    card = AgentCard(export, args, hyperparams, evaluation, repo_id, model.uses_action_masks)
    card.card().save(folder / "README.md")
    return export


def complete_repository(folder: str | Path, repo_id: str, seed: int, n_envs: int) -> None:
    """
    Add the export to the folder that ``push-to-hub`` uploads, and write our card in place of rl-zoo3's. The zip stays, because
    ``load-from-hub`` takes it. Folders of other algorithms keep rl-zoo3's card. In all folders :func:`publishable` removes
    private arguments from ``args.yml``, and the TensorBoard folder is removed from the model.

    :param folder: as rl-zoo3 has filled it
    :param repo_id: of the repository on the Hugging Face hub
    :param seed: of the environment in which rl-zoo3 has evaluated the agent
    :param n_envs: how many environments it has evaluated the agent in, side by side
    :raises CommandError: if the model cannot be exported
    """
    folder = Path(folder)
    # UnsafeLoader adds no risk: rl-zoo3 has already loaded the originals of args.yml and config.yml with it
    args = yaml.load((folder / "args.yml").read_text(), Loader=yaml.UnsafeLoader)
    # As rl-zoo3 writes it
    (folder / "args.yml").write_text(yaml.dump(OrderedDict(publishable(args))))
    model_file = folder / f"{args['algo']}-{EnvironmentName(args['env'])}.zip"
    _remove_tensorboard_log(model_file)
    if args["algo"] not in ALGORITHMS:
        return
    hyperparams = dict(yaml.load((folder / "config.yml").read_text(), Loader=yaml.UnsafeLoader))
    result = json.loads((folder / "results.json").read_text())
    # With those of push-to-hub's command line
    env_kwargs = yaml.load((folder / "env_kwargs.yml").read_text(), Loader=yaml.UnsafeLoader)
    env_kwargs = {**(hyperparams.get("env_kwargs") or {}), **env_kwargs}
    evaluation = Evaluation(
        mean=result["mean_reward"],
        std=result["std_reward"],
        n_episodes=result["n_eval_episodes"],
        seed=seed,
        deterministic=result["is_deterministic"],
        n_envs=n_envs,
        env_kwargs={name: value for name, value in env_kwargs.items() if name != "render_mode"},
    )
    model = ALGORITHMS[args["algo"]].load(model_file, device="cpu", compile_update=False)
    try:
        write_agent(model, folder, args, hyperparams, evaluation, repo_id)
    except ValueError as error:
        raise CommandError(f"the model cannot be exported: {error}") from error


def _remove_tensorboard_log(model_file: Path) -> None:
    """Remove the folder of TensorBoard from a model, and from what rl-zoo3 has unpacked of it beside it."""
    with zipfile.ZipFile(model_file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["data"] = json.dumps(json.loads(contents["data"]) | {"tensorboard_log": None}, indent=4).encode()
    with zipfile.ZipFile(model_file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    (model_file.with_suffix("") / "data").write_bytes(contents["data"])


def publishable(args: Mapping[str, Any]) -> dict[str, Any]:
    """
    Arguments of ``train`` without folders, databases and accounts.

    :param args: as in ``args.yml`` of a run folder
    :return: the same names; :data:`PRIVATE` have rl-zoo3's defaults, files are without their folders, ``conf_file`` is None
        for the one in this package, which is the default
    """
    public = {name: PRIVATE.get(name, value) for name, value in args.items()}
    for name in ("conf_file", "trained_agent"):
        if public.get(name):
            # PureWindowsPath splits at slashes and at backslashes
            public[name] = PureWindowsPath(public[name]).name
    if args.get("conf_file") and is_ours(args["conf_file"], args["algo"]):
        public["conf_file"] = None
    return public


def training_command(args: Mapping[str, Any]) -> str:
    """
    The command that trains an agent.

    :param args: as in ``args.yml`` of a run folder
    :return: one line for a POSIX shell, without options that do not change the agent
    """
    words = ["sb3-mirl", "train", "--algo", args["algo"], "--env", args["env"], "--seed", str(args["seed"])]
    public = publishable(args)
    for name, default in OPTIONS.items():
        value = public.get(name, default)
        if value is None or value == default:
            continue
        if isinstance(value, dict):
            values = [f"{key}:{item!r}" for key, item in value.items()]
        else:
            values = [str(item) for item in (value if isinstance(value, list) else [value])]
        words += [f"--{name.replace('_', '-')}", *values]
    return shlex.join(words)


def is_ours(conf_file: str, algorithm: str) -> bool:
    """Whether a file of hyper-parameters is, by its name, the one in this package, perhaps on another machine."""
    return PureWindowsPath(conf_file).parts[-2:] == ("hyperparams", f"{algorithm}.yml")


@dataclass(frozen=True)
class AgentCard:
    """The content of the card of an exported agent; the attributes are parameters of :func:`write_agent`."""

    export: Path
    args: Mapping[str, Any]
    hyperparams: Mapping[str, Any]
    evaluation: Evaluation
    repo_id: str | None
    uses_action_masks: bool

    def card(self) -> ModelCard:
        """The card, with metadata for the hub."""
        found = inspect_file(self.export)
        steps, planned = found["training"]["num_timesteps"], found["training"]["total_timesteps"]
        of_planned = "" if steps >= planned else f" of {planned:,}"
        sections = [
            f"# **{self.algorithm}** agent for **{_cell(self.env)}**",
            f"{DESCRIPTIONS[self.args['algo']]} The agent is the one after {steps:,}{of_planned} environment steps. It was "
            f"trained with `sb3_mirl` {found['versions'].get('sb3_mirl', '')}, a plug-in for Stable-Baselines3 and rl-zoo3.",
            self.results(),
            self.prior(found),
            self.usage(),
            self.training(found["versions"]),
        ]
        text = "\n\n".join(filter(None, sections))
        return ModelCard(f"---\n{self.metadata().to_yaml()}\n---\n\n{text}\n")

    @property
    def algorithm(self) -> str:
        """The name of the algorithm's class."""
        return ALGORITHMS[self.args["algo"]].__name__

    @property
    def env(self) -> str:
        """The id of the environment."""
        return str(self.args["env"])

    def metadata(self) -> ModelCardData:
        """What the hub reads: tags, and the result for its leaderboards."""
        result = EvalResult(
            task_type="reinforcement-learning",
            task_name="reinforcement-learning",
            dataset_type=self.env,
            dataset_name=self.env,
            metric_type="mean_reward",
            metric_name="mean_reward",
            # Leaderboards read it in this form
            metric_value=f"{self.evaluation.mean:.2f} +/- {self.evaluation.std:.2f}",
            verified=False,
        )
        tags = [self.env, "deep-reinforcement-learning", "reinforcement-learning", "stable-baselines3", "sb3-mirl"]
        return ModelCardData(
            library_name="stable-baselines3",
            tags=[*tags, self.args["algo"]],
            model_name=self.algorithm,
            eval_results=[result],
        )

    def results(self) -> str:
        """The section of the results."""
        mean, std, n_episodes, seed, deterministic, *_ = self.evaluation
        actions = "the most probable ones" if deterministic else "with exploration"
        return f"""## Results

| mean return | standard deviation | episodes | actions | seed of training | seed of evaluation |
|---:|---:|---:|---|---:|---:|
| {mean:.2f} | {std:.2f} | {n_episodes} | {actions} | {self.args["seed"]} | {seed} |"""

    def prior(self, found: Mapping[str, Any]) -> str:
        """
        The section of ρ and β.

        :param found: of :func:`~sb3_mirl.mirl.priors.inspect_file`
        :return: empty for an algorithm without ρ
        """
        if found["beta"] is None:
            return ""
        beta = f"The inverse temperature β is {found['beta']:.6g}, in 1/reward."
        if found["state_prior"] is not None:
            return f"## Action prior\n\nρ depends on the observation: `sb3-mirl prior {self.export.name}` shows it. {beta}"
        prior, n = found["prior"], len(found["prior"])
        names = found["action_names"] or [f"action_{action}" for action in range(n)]
        order = sorted(range(n), key=lambda action: -prior[action])
        rows = "\n".join(f"| {_cell(names[action])} | {action} | {prior[action]:.4f} |" for action in order[:MAX_ROWS])
        hidden = f"\n\nThe table leaves out the {n - MAX_ROWS} actions with the smallest ρ(a)." if n > MAX_ROWS else ""
        return f"""## Action prior

A small ρ(a) means that the agent chose the action seldom. {beta}

| action | index | ρ(a) |
|---|---:|---:|
{rows}{hidden}"""

    def usage(self) -> str:
        """The section that says how to load the agent."""
        file = json.dumps(self.export.name)
        if self.repo_id is not None:
            file = f"hf_hub_download({json.dumps(self.repo_id)}, {file})"
        imports = [] if self.repo_id is None else ["from huggingface_hub import hf_hub_download"]
        code, note = [f"model = {self.algorithm}.load_exported({file})"], ""
        if wrapped := [name for name in WRAPPERS if self.hyperparams.get(name)]:
            note = f"\n\nThe environment needs the wrappers of the hyper-parameters below ({', '.join(wrapped)})."
        else:
            maskable = self.uses_action_masks
            evaluation = "sb3_contrib.common.maskable" if maskable else "stable_baselines3.common"
            imports += ["from stable_baselines3.common.env_util import make_vec_env"]
            imports += [f"from {evaluation}.evaluation import evaluate_policy"]
            code += self.evaluating()
        modules = [module for start, module in OUR_ENVIRONMENTS.items() if self.env.startswith(start)]
        imports += [f"import {module}" for module in [*modules, *self.args.get("gym_packages", [])]]
        lines = "\n".join([*sorted(imports), f"from sb3_mirl import {self.algorithm}", "", *code])
        return f"""## Load without running code

`{self.export.name}` holds tensors and JSON. Loading it runs no code of the file.

```python
{lines}
```{note}

`sb3-mirl inspect {self.export.name}` shows settings, ρ and β.{self.zip_usage()}"""

    def evaluating(self) -> list[str]:
        """Lines of Python that repeat the evaluation."""
        mean, std, n_episodes, seed, deterministic, n_envs, env_kwargs = self.evaluation
        own = self.hyperparams.get("env_kwargs") or self.args.get("env_kwargs")
        env_kwargs = own if env_kwargs is None else env_kwargs
        kwargs = (f", n_envs={n_envs}" if n_envs > 1 else "") + (f", env_kwargs={env_kwargs!r}" if env_kwargs else "")
        return [
            f"env = make_vec_env({json.dumps(self.env)}, seed={seed}{kwargs})",
            f"mean, std = evaluate_policy(model, env, {n_episodes}, deterministic={deterministic})  # {mean:.2f}, {std:.2f}",
        ]

    def zip_usage(self) -> str:
        """What to do with the other files of a repository on the hub."""
        if self.repo_id is None:
            return ""
        organization, _, name = self.repo_id.partition("/")
        which = f"--algo {self.args['algo']} --env {self.env} -f logs"
        renamed = "" if name == self.export.stem else f" -name {name}"
        return f"""

The zip, YAML and pickle files can run code when they are loaded. These commands load them. Use them only if you trust the
author.

```bash
TRUST_REMOTE_CODE=True sb3-mirl load-from-hub {which} -orga {organization}{renamed}
sb3-mirl enjoy {which}
```"""

    def training(self, versions: Mapping[str, str]) -> str:
        """
        The section of the training.

        :param versions: of packages, by name
        """
        shown = yaml.dump(dict(self.hyperparams), sort_keys=False, allow_unicode=True).rstrip()
        public = publishable(self.args)
        agent = "\nThe training began with an agent from a file, which is not here.\n" if public.get("trained_agent") else ""
        elsewhere = public.get("trial_id") is not None or public.get("conf_file")
        note = " The command took some of them from a trial or a file, which is not here." if elsewhere else ""
        return f"""## Training

```bash
{training_command(self.args)}
```
{agent}
The hyper-parameters:{note}

```yaml
{shown}
```

Versions: {", ".join(f"{name} {version}" for name, version in versions.items())}.
Other versions and other processors round differently, and so train another agent."""


def _cell(text: object) -> str:
    """Text of a file or an environment in a table of Markdown."""
    return printable(text).replace("|", r"\|")
