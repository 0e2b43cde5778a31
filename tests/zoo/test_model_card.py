"""Model cards: what push-to-hub would upload, up to the network call, and the card's commands and Python."""

import json
import re
import shlex
from collections import OrderedDict
from pathlib import Path

import gymnasium as gym
import huggingface_hub
import numpy as np
import pytest
import torch as th
import yaml
from exports import FAST
from huggingface_hub import ModelCard
from probes import NamedActions
from rl_zoo3.utils import ALGOS
from zoo_train import train

from sb3_mirl import MDQN, MIRL
from sb3_mirl.common.export.model_file import read_model_file
from sb3_mirl.zoo.command import main, make_parser
from sb3_mirl.zoo.model_card import PRIVATE, Evaluation, publishable, training_command, write_agent
from sb3_mirl.zoo.runs import Run

ARGS = {"algo": "mirl", "env": "CartPole-v1", "seed": 3}
EVALUATION = Evaluation(12.5, 1.25, 10, 7)


def push(uploads, monkeypatch, *arguments, algo="mirl"):
    """Run ``push-to-hub`` with a hub that keeps the folder; return the exit status."""

    class Hub:
        def create_repo(self, **kwargs):
            return f"hub/{kwargs['repo_id']}"

        def snapshot_download(self, repo_id, local_dir):
            Path(local_dir).mkdir(parents=True, exist_ok=True)

        def upload_folder(self, repo_id, folder_path, commit_message):
            uploads[repo_id] = Path(folder_path).absolute()

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    command = ["push-to-hub", "--algo", algo, "--env", "CartPole-v1", "-f", "logs", "-orga", "me", "--no-render", *arguments]
    return main(command)


@pytest.fixture(scope="module")
def pushed(runs, tmp_path_factory):
    """The folder that would be uploaded for an agent of MIRL."""
    uploads = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("push"))
        Path("logs").symlink_to(runs / "logs")
        assert push(uploads, patch, "--seed", "5") == 0
    assert [*uploads] == ["me/mirl-CartPole-v1"]
    return uploads["me/mirl-CartPole-v1"]


@pytest.fixture(scope="module")
def text(pushed):
    return (pushed / "README.md").read_text("utf-8")


def block(text, language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", text.split("## Training")[0], re.DOTALL)
    return found


def table(text):
    """The rows of the table of ρ: action, index, ρ(a)."""
    rows = re.findall(r"^\| (.+) \| (\d+) \| (0\.\d+|1\.0+) \|$", text, re.MULTILINE)
    return [(name, int(index), float(share)) for name, index, share in rows]


def test_metadata_are_valid_for_the_hub(pushed):
    data = ModelCard.load(pushed / "README.md").data
    result = json.loads((pushed / "results.json").read_text())
    assert data.library_name == "stable-baselines3"
    assert {"reinforcement-learning", "CartPole-v1", "mirl"} <= set(data.tags)
    (evaluated,) = data.eval_results
    assert (data.model_name, evaluated.task_type, evaluated.dataset_type) == ("MIRL", "reinforcement-learning", "CartPole-v1")
    assert evaluated.metric_value == f"{result['mean_reward']:.2f} +/- {result['std_reward']:.2f}"


def test_export_is_the_trained_model_with_its_settings(pushed, runs):
    run = Run.newest(runs / "logs", "mirl", "CartPole-v1", None)
    trained = MIRL.load(run.model_file, device="cpu")
    model = MIRL.load_exported(pushed / "mirl-CartPole-v1.safetensors", device="cpu")
    assert all(th.equal(value, model.policy.state_dict()[name]) for name, value in trained.policy.state_dict().items())
    arguments = read_model_file(pushed / "mirl-CartPole-v1.safetensors")[0]["arguments"]
    # rl-zoo3 has loaded the model with a buffer of one transition and the seed of the evaluation
    assert (arguments["buffer_size"], arguments["seed"]) == (run.hyperparams["buffer_size"], run.args["seed"])


def check_python(folder, monkeypatch):
    """Run the card's Python, which must repeat the result; return the result and the names that it defines."""

    def hf_hub_download(repo_id, filename):
        assert repo_id == "me/mirl-CartPole-v1"
        return str(folder / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    names = {}
    exec(block((folder / "README.md").read_text("utf-8"), "python"), names)
    result = json.loads((folder / "results.json").read_text())
    assert (names["mean"], names["std"]) == (result["mean_reward"], result["std_reward"])
    return names


def test_python_of_the_card_repeats_the_result(pushed, monkeypatch):
    assert check_python(pushed, monkeypatch)["env"].num_envs == 1


def test_python_of_the_card_has_the_environments_of_push_to_hub(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("logs").symlink_to(runs / "logs")
    uploads = {}
    # Each episode returns 0 or -1 with this argument of CartPole
    own = ["--n-envs", "2", "--env-kwargs", "sutton_barto_reward:True", "render_mode:'rgb_array'"]
    assert push(uploads, monkeypatch, *own) == 0
    names = check_python(uploads["me/mirl-CartPole-v1"], monkeypatch)
    assert names["env"].num_envs == 2 and names["mean"] <= 0
    assert "render_mode" not in (uploads["me/mirl-CartPole-v1"] / "README.md").read_text("utf-8")


def test_bad_options_of_push_to_hub_get_the_error_of_its_parser(in_runs, monkeypatch, capsys):
    for option in ("--seed", "--n-envs"):
        with pytest.raises(SystemExit):
            push({}, monkeypatch, option, "x")
        assert capsys.readouterr().err == f"sb3-mirl push-to-hub: error: argument {option}: invalid int value: 'x'\n"


def test_commands_of_the_card_play_the_agent(pushed, text, tmp_path, monkeypatch):
    import huggingface_sb3
    from requests.exceptions import HTTPError

    def load_from_hub(repo_id, filename):
        if not (pushed / filename).exists():
            raise HTTPError(filename)
        return str(pushed / filename)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_sb3, "load_from_hub", load_from_hub)
    load, enjoy = block(text, "bash").splitlines()
    trust, _, *arguments = shlex.split(load)
    monkeypatch.setenv(*trust.split("="))
    assert main(arguments) == 0
    assert main([*shlex.split(enjoy)[1:], "--no-render", "-n", "20"]) == 0


def test_training_command_of_the_card_trains_the_same_agent(text, pushed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"## Training\n\n```bash\nsb3-mirl (.*)\n", text)
    assert main([*shlex.split(command), "--num-threads", "1", "--verbose", "0"]) == 0
    again = MIRL.load("logs/mirl/CartPole-v1_1/CartPole-v1.zip", device="cpu")
    model = MIRL.load_exported(pushed / "mirl-CartPole-v1.safetensors", device="cpu")
    assert model.num_timesteps == again.num_timesteps > 0
    assert all(th.equal(value, again.policy.state_dict()[name]) for name, value in model.policy.state_dict().items())


def test_card_has_results_hyperparameters_and_beta(text, pushed, runs):
    result = json.loads((pushed / "results.json").read_text())
    run = Run.newest(runs / "logs", "mirl", "CartPole-v1", None)
    row = (
        f"| {result['mean_reward']:.2f} | {result['std_reward']:.2f} | 10 | the most probable ones | {run.args['seed']} | 5 |"
    )
    assert row in text
    (shown,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert yaml.safe_load(shown) == dict(run.hyperparams)
    model = MIRL.load_exported(pushed / "mirl-CartPole-v1.safetensors", device="cpu")
    assert f"β is {model.beta:.6g}" in text
    assert {index: share for _, index, share in table(text)} == {a: round(p, 4) for a, p in enumerate(model.prior.tolist())}


@pytest.mark.parametrize("algo", ["mirl", "dqn"])
def test_upload_has_no_folders_or_passwords(algo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"-f": f"{tmp_path}/logs", "-tb": f"{tmp_path}/tb", "--optimization-log-path": f"{tmp_path}/search"}
    options |= {"--storage": "postgresql://me:secret@host/db", "--study-name": "secret", "--wandb-tags": "secret"}
    options |= {"--wandb-project-name": "secret", "--wandb-entity": "secret", "--wandb-group": "secret"}
    train(*(word for option in options.items() for word in option), algo=algo, steps=60)
    run = Run.newest("logs", algo, "CartPole-v1", None)
    # What other files of hyper-parameters, other agents and --track write
    own = {"conf_file": f"{tmp_path}/own.yml", "trained_agent": f"{tmp_path}/agent.zip", "command": f"train -f {tmp_path}"}
    (run.params_folder / "args.yml").write_text(yaml.dump(OrderedDict(run.args | own)))
    uploads = {}
    assert push(uploads, monkeypatch, algo=algo) == 0
    (folder,) = uploads.values()
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {"args.yml", "config.yml", "README.md", "data"} <= {file.name for file in files}
    for file in files:
        content = file.read_bytes()
        assert not [word for word in (str(tmp_path), "secret") if word.encode() in content], file
    # As enjoy reads it
    args = yaml.load((folder / "args.yml").read_text(), Loader=yaml.UnsafeLoader)
    assert type(args) is OrderedDict and [*args] == [*run.args, "command"]
    assert (args["conf_file"], args["trained_agent"], args["storage"]) == ("own.yml", "agent.zip", None)
    changed = {*own, *PRIVATE}
    assert {**args, **dict.fromkeys(changed)} == {**run.args, **dict.fromkeys(changed)}
    # The model has lost nothing else
    loaded, trained = (ALGOS[algo].load(file, device="cpu") for file in (folder / f"{algo}-CartPole-v1.zip", run.model_file))
    assert loaded.tensorboard_log is None and loaded.num_timesteps == trained.num_timesteps
    assert all(th.equal(value, trained.policy.state_dict()[name]) for name, value in loaded.policy.state_dict().items())


def test_private_arguments_have_the_defaults_of_rl_zoo3():
    defaults = make_parser("train").parse_args([])
    private = {name: value for name, value in PRIVATE.items() if name != "command"}
    assert private == {name: getattr(defaults, name) for name in private}


def test_published_arguments_give_the_same_command():
    ours = {**ARGS, "conf_file": r"C:\me\hyperparams\mirl.yml", "trained_agent": r"C:\me\agent.zip"}
    public = publishable(ours)
    assert (public["conf_file"], public["trained_agent"]) == (None, "agent.zip")
    assert training_command(public) == training_command(ours)


def test_other_algorithms_keep_the_card_of_rl_zoo3(in_runs, monkeypatch, tmp_path):
    uploads = {}
    assert push(uploads, monkeypatch, algo="dqn") == 0
    (folder,) = uploads.values()
    assert "python -m rl_zoo3.train --algo dqn" in (folder / "README.md").read_text()
    assert not [*folder.glob("*.safetensors")]


def test_model_that_cannot_be_exported_is_not_uploaded(in_runs, monkeypatch, capsys):
    def export(self, path, **arguments):
        raise ValueError("learning_rate is a function")

    uploads = {}
    monkeypatch.setattr(MIRL, "export", export)
    assert push(uploads, monkeypatch) == 2
    assert not uploads and "cannot be exported: learning_rate is a function" in capsys.readouterr().err


def test_prior_table_has_the_names_of_the_actions(trained, tmp_path):
    write_agent(trained, tmp_path, ARGS, {}, EVALUATION)
    rows = table((tmp_path / "README.md").read_text("utf-8"))
    assert {name: index for name, index, _ in rows} == {
        name: index for index, name in enumerate(NamedActions().get_action_meanings())
    }
    assert [share for *_, share in rows] == sorted((round(p, 4) for p in trained.prior.tolist()), reverse=True)


def test_names_of_actions_cannot_break_the_table(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "action_names", [f"a|b\n{i}" for i in range(len(trained.prior))])
    write_agent(trained, tmp_path, ARGS, {}, EVALUATION)
    rows = table((tmp_path / "README.md").read_text("utf-8"))
    assert sorted(name for name, *_ in rows) == sorted(rf"a\|b\n{i}" for i in range(len(trained.prior)))


def test_card_without_prior_for_munchausen_dqn(tmp_path):
    model = MDQN("MlpPolicy", "CartPole-v1", **FAST).learn(20)
    write_agent(model, tmp_path, {**ARGS, "algo": "mdqn"}, {}, EVALUATION)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "ρ(a)" not in text and "Munchausen" in text and "β is" not in text


def test_card_names_the_wrappers_that_the_environment_needs(trained, tmp_path):
    write_agent(trained, tmp_path, ARGS, {"frame_stack": 4, "normalize": False}, EVALUATION)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "(frame_stack)" in text and "make_vec_env" not in text
    names = {}
    code = block(text, "python").replace('"mirl-', f'"{tmp_path}/mirl-')
    exec(code, names)
    assert np.array_equal(names["model"].prior, trained.prior)


def test_card_imports_modules_that_register_the_environment(trained, tmp_path):
    write_agent(trained, tmp_path, {**ARGS, "env": "UselessCartPole-15-v0", "gym_packages": ["my_envs"]}, {}, EVALUATION)
    code = block((tmp_path / "README.md").read_text("utf-8"), "python")
    assert "import sb3_mirl.envs.useless_actions\n" in code and "import my_envs\n" in code


def test_training_command_can_be_parsed_by_a_shell():
    args = {**ARGS, "n_timesteps": 500, "hyperparams": {"policy_kwargs": {"net_arch": [8]}, "loss": "mse"}}
    args |= {"conf_file": "/home/me/hyperparams/mirl.yml", "eval_freq": 25000, "verbose": 0, "trial_id": None}
    words = shlex.split(training_command(args))
    assert words[:8] == ["sb3-mirl", "train", "--algo", "mirl", "--env", "CartPole-v1", "--seed", "3"]
    assert words[8:] == ["--n-timesteps", "500", "--hyperparams", "policy_kwargs:{'net_arch': [8]}", "loss:'mse'"]


def test_training_command_shows_no_folders_or_passwords():
    args = {**ARGS, "conf_file": "/home/me/own.yml", "storage": "postgresql://me:secret@host/db", "trial_id": 2}
    assert training_command(args).split("--seed 3")[1] == " --conf-file own.yml"
    args = {**ARGS, "trained_agent": "/home/me/logs/agent.zip"}
    assert training_command(args).split("--seed 3")[1] == " --trained-agent agent.zip"


def test_card_says_that_files_of_the_author_are_not_here(trained, tmp_path):
    for own, note in (("conf_file", "from a trial or a file, which is not here"), ("trained_agent", "began with an agent")):
        write_agent(trained, tmp_path, ARGS, {}, EVALUATION)
        assert note not in (tmp_path / "README.md").read_text("utf-8")
        write_agent(trained, tmp_path, {**ARGS, own: "/home/me/own.zip"}, {}, EVALUATION)
        text = (tmp_path / "README.md").read_text("utf-8")
        assert note in text and "/home/me" not in text


def test_long_tables_are_cut(tmp_path):
    class ManyActions(gym.Env):
        observation_space, action_space = gym.spaces.Box(0, 1, (2,)), gym.spaces.Discrete(40)

    model = MIRL("MlpPolicy", ManyActions(), **FAST)
    write_agent(model, tmp_path, ARGS, {}, EVALUATION)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert len(table(text)) == 32 and "leaves out the 8 actions" in text


def test_the_export_of_a_playing_model_has_the_settings_of_the_training(tmp_path):
    file = tmp_path / "model.zip"
    MIRL("MlpPolicy", "CartPole-v1", compile_update=True, **FAST).save(file)
    model = MIRL.load(file, buffer_size=1, compile_update=False)
    export = write_agent(model, tmp_path, ARGS, {"compile_update": True, "buffer_size": 70}, EVALUATION)
    loaded = MIRL.load_exported(export)
    assert loaded.compile_update and loaded.buffer_size == 70


def test_parameters_of_the_zoo_reach_the_card(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train("-params", "learning_starts:50", "policy_kwargs:dict(net_arch=[8])", steps=60)
    run = Run("logs/mirl/CartPole-v1_1")
    model = MIRL.load(run.model_file, device="cpu")
    write_agent(model, tmp_path / "agent", run.args, run.hyperparams, EVALUATION)
    assert "policy_kwargs:{" in (tmp_path / "agent" / "README.md").read_text("utf-8")
