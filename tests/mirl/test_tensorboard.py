"""What TensorBoard shows on its page Custom Scalars."""

import re

import pytest
from models import FAST
from probes import TwoArms
from stable_baselines3.common.logger import configure

from sb3_mirl import MIRL, PriorInfluenceCallback
from sb3_mirl.mirl.tensorboard import CHARTS, PRIOR

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read_back(folder):
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    return events


def layout_of(events):
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    (event,) = events.Tensors(metadata.CONFIG_SUMMARY_TAG)
    return layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorboard")
    model = MIRL("MlpPolicy", TwoArms(), tensorboard_log=str(folder), **FAST)
    model.learn(300, callback=PriorInfluenceCallback(log_freq=50, n_states=10), log_interval=1)
    return read_back(folder / "MIRL_1")


def test_the_layout_is_in_the_file_without_a_callback(events):
    (category,) = layout_of(events).category
    assert category.title == "MIRL"
    assert {chart.title: list(chart.multiline.tag) for chart in category.chart} == CHARTS


def test_a_prior_that_is_not_logged_by_action_has_no_chart(tmp_path):
    model = MIRL(
        "MlpPolicy", TwoArms(), prior_type="conditional", prior_observation="all", tensorboard_log=str(tmp_path), **FAST
    )
    model.learn(100, log_interval=1)
    (category,) = layout_of(read_back(tmp_path / "MIRL_1")).category
    assert {chart.title for chart in category.chart} == CHARTS.keys() - {PRIOR}


def test_each_chart_shows_something_that_is_logged(events):
    logged = events.Tags()["scalars"]
    for title, tags in CHARTS.items():
        shown = [name for name in logged if any(re.match(tag, name) for tag in tags)]
        assert shown, title
    assert {"prior/action_0", "prior/action_1"} <= set(logged)


def test_other_loggers_get_nothing(tmp_path):
    model = MIRL("MlpPolicy", TwoArms(), **FAST)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(100, log_interval=1)
    assert "prior/action_0" in (tmp_path / "progress.csv").read_text() and len(list(tmp_path.iterdir())) == 1
