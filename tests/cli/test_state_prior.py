"""sb3-mirl prior and sb3-mirl inspect for priors that see a view of the observation."""

import json

import numpy as np
import pytest
from probes import Matching, NamedActions

from sb3_mirl import MIRL
from sb3_mirl.cli.main import main
from sb3_mirl.cli.state_prior import show_state_prior
from sb3_mirl.mirl.priors import inspect_file

SMALL = {"buffer_size": 10, "policy_kwargs": {"net_arch": [4]}, "seed": 0}
TABLE = {"prior_type": "conditional", "prior_observation": "all", "prior_init": [[0.25, 0.75], [1.0, 0.0]]}
SKILLS = {"prior_type": "skills", "prior_observation": {"high": "all", "low": None}, "n_skills": 3}


def file_of(tmp_path, as_zip=False, **settings):
    model = MIRL("MlpPolicy", Matching(), **SMALL, **settings)
    model.action_names = ["LEFT", "RIGHT"]
    if as_zip:
        model.save(tmp_path / "model.zip")
        return tmp_path / "model.zip"
    return model.export(tmp_path / "model")


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_table_is_shown_by_x(as_zip, tmp_path, capsys):
    file = file_of(tmp_path, as_zip, **TABLE)
    assert main(["prior", str(file)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["rho(a|x)", "entropy", "LEFT", "RIGHT"]
    assert lines[2:] == [["x", "0", "0.5623", "0.2500", "0.7500"], ["x", "1", "0.0000", "1.0000", "0.0000"]]
    assert main(["prior", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["table"], found["prior_type"], found["prior_observation"]) == (TABLE["prior_init"], "conditional", "all")
    assert main(["inspect", str(file)]) == 0
    assert "prior (rho) depends on the observation" in capsys.readouterr().out


def test_skills_are_shown_by_level(tmp_path, capsys):
    file = file_of(tmp_path, **SKILLS)
    assert main(["prior", str(file), "--out", str(tmp_path / "prior.png")]) == 0
    text = capsys.readouterr().out
    assert "rho(z|x_high)" in text and "skill 2, x 0" in text and (tmp_path / "prior.png").stat().st_size > 1000
    assert np.shape(inspect_file(file)["state_prior"]["low"]) == (3, 1, 2)


def test_a_network_has_no_table(tmp_path, capsys):
    model = MIRL("MlpPolicy", NamedActions(), **SMALL, prior_type="conditional", prior_observation=[0, 2])
    file = model.export(tmp_path / "model")
    assert main(["prior", str(file)]) == 0
    assert "rho is a network of a continuous x: policy.prior_probabilities(obs) gives its values" in capsys.readouterr().out
    assert main(["prior", str(file), "--out", str(tmp_path / "prior.png")]) == 2
    assert "has a network for a prior, which has no table to be drawn" in capsys.readouterr().err


def test_such_a_file_is_shown_alone(tmp_path, capsys):
    file = file_of(tmp_path, **TABLE)
    assert main(["prior", str(file), str(file)]) == 2
    assert "has a prior that depends on the observation: show it without other files" in capsys.readouterr().err


def test_long_tables_are_cut():
    found = {"state_prior": {"table": np.full((100, 40), 1 / 40).tolist()}, "prior": [1 / 40] * 40, "action_names": None}
    found |= {"algorithm": "MIRL", "beta": 1.0, "arguments": {}}
    lines = show_state_prior(found, "file").splitlines()
    assert len(lines) == 2 + 64 + 2 and lines[-2:] == [
        "  and 36 more rows (--json shows all)",
        "  and 8 more columns (--json shows all)",
    ]
