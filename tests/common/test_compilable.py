"""Networks are described as ``named_parameters()`` does, and those that cannot be compiled are refused."""

import pytest
import torch as th

from sb3_mirl import MIRL
from sb3_mirl.common.compilable import describe_network


def nested():
    shared = th.nn.Linear(3, 3)
    network = th.nn.Sequential(
        shared, th.nn.Sequential(th.nn.ReLU(), shared, th.nn.LayerNorm(3)), th.nn.Linear(3, 2, bias=False)
    )
    network.register_parameter("own", th.nn.Parameter(th.zeros(1)))
    network.register_parameter("nothing", None)
    network[2].weight = th.nn.Parameter(th.zeros(2, 3))
    network.register_module("no module", None)
    return network


def tied():
    network = th.nn.Sequential(th.nn.Linear(3, 3), th.nn.Linear(3, 3))
    network[1].weight = network[0].weight
    return network


@pytest.mark.parametrize("make", [nested, tied, lambda: MIRL("MlpPolicy", "CartPole-v1").q_net])
def test_names_and_parameters(make):
    network = make()
    _, names, parameters = describe_network(network)
    expected = dict(network.named_parameters())
    assert names == [*expected]
    assert all(one is other for one, other in zip(parameters, expected.values(), strict=True))


def test_description_changes_with_kinds_and_modes():
    network = nested()
    before = describe_network(network)[0]
    assert before == describe_network(network)[0] and hash(before) is not None
    network[1][0].eval()
    in_evaluation = describe_network(network)[0]
    network[1][0] = th.nn.Tanh()
    assert len({before, in_evaluation, describe_network(network)[0]}) == 3


def hooked():
    network = nested()
    network[1][0].register_forward_hook(lambda *arguments: None)
    return network


def hooked_parameter():
    network = nested()
    network[2].weight.register_hook(lambda gradient: gradient)
    return network


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: th.nn.Sequential(th.nn.Dropout(0.1)), "without random numbers, such as those of dropout, got Dropout"),
        (lambda: th.nn.Sequential(th.nn.BatchNorm1d(3)), "without buffers, such as those of batch norm, got BatchNorm1d"),
        (hooked, r"without hooks, got ReLU\(\)"),
        (hooked_parameter, "without hooks, got parameter 2.weight"),
        (lambda: th.jit.trace(th.nn.Linear(2, 2), th.zeros(1, 2)), "without TorchScript"),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_refused(network, message):
    with pytest.raises(ValueError, match=f"This needs a network {message}"):
        describe_network(network(), "This")


def test_dropout_that_drops_nothing():
    describe_network(th.nn.Sequential(th.nn.Dropout(0.0)))
