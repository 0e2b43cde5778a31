"""One optimiser for all runs takes the steps that each model's own would take."""

import pytest
import torch as th
from joint_runs import make_models

from sb3_mirl import MIRL
from sb3_mirl.joint.optimizer import JointOptimizer

KINDS = {
    "Adam": (th.optim.Adam, {}),
    "amsgrad": (th.optim.Adam, {"amsgrad": True, "weight_decay": 0.1}),
    "AdamW": (th.optim.AdamW, {"betas": (0.5, 0.9)}),
    "RMSprop": (th.optim.RMSprop, {"momentum": 0.9, "centered": True}),
    "SGD": (th.optim.SGD, {"momentum": 0.9, "nesterov": True}),
}


def make(kind, rates, steps_before):
    optimizer, arguments = KINDS[kind]
    policy = {"net_arch": [8], "optimizer_class": optimizer, "optimizer_kwargs": arguments}
    models = make_models(
        [(MIRL, {"seed": seed}) for seed in range(3)], lambda: "CartPole-v1", "MlpPolicy", policy_kwargs=policy
    )
    for model, rate, steps in zip(models, rates, steps_before, strict=True):
        model.policy.optimizer.param_groups[0]["lr"] = rate
        for _ in range(steps):
            own_step(model, gradients_of(model, steps))
    return models


def gradients_of(model, number):
    generator = th.Generator().manual_seed(number)
    return {name: th.randn(value.shape, generator=generator) for name, value in model.q_net.named_parameters()}


def own_step(model, gradients):
    for name, parameter in model.q_net.named_parameters():
        parameter.grad = gradients[name].clone()
    model.policy.optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rates", "steps_before"), [((0.1, 0.1, 0.1), (0, 0, 0)), ((0.1, 0.1, 0.01), (2, 2, 2)), ((0.1, 0.1, 0.1), (0, 3, 3))]
)
def test_equals_the_models_own(kind, rates, steps_before):
    alone, joint = make(kind, rates, steps_before), make(kind, rates, steps_before)
    names = [name for name, _ in joint[0].q_net.named_parameters()]
    stacks = {name: th.stack([dict(model.q_net.named_parameters())[name].detach() for model in joint]) for name in names}
    for row, model in enumerate(joint):
        for name, parameter in model.q_net.named_parameters():
            parameter.data = stacks[name][row]
    optimizer = JointOptimizer(joint, stacks)
    for step in range(4):
        if step == 2:  # a schedule
            for model in (alone[1], joint[1]):
                model.policy.optimizer.param_groups[0]["lr"] = 0.05
        gradients = [gradients_of(model, 10 * step + row) for row, model in enumerate(alone)]
        for model, own in zip(alone, gradients, strict=True):
            own_step(model, own)
        optimizer.step({name: th.stack([own[name] for own in gradients]) for name in names}, step)
    for row, (one, other) in enumerate(zip(alone, joint, strict=True)):
        for parameter, expected in zip(other.q_net.parameters(), one.q_net.parameters(), strict=True):
            th.testing.assert_close(parameter, expected)
        optimizer.count_steps(row)
        states = [model.policy.optimizer.state_dict()["state"] for model in (other, one)]
        assert states[0].keys() == states[1].keys()
        for number, expected_state in states[1].items():
            for name, value in expected_state.items():
                th.testing.assert_close(states[0][number][name], value)
        optimizer.release(row)
    before = joint[1].policy.optimizer.state_dict()["state"][0]
    before = {name: value.clone() for name, value in before.items() if isinstance(value, th.Tensor)}
    own_step(joint[0], gradients_of(joint[0], 1))
    for name, value in before.items():
        assert th.equal(joint[1].policy.optimizer.state_dict()["state"][0][name], value)


def test_parameters_without_gradient_stay():
    (model,) = make("Adam", (0.1, 0.1, 0.1), (0, 0, 0))[:1]
    stacks = {name: value.detach().unsqueeze(0).clone() for name, value in model.q_net.named_parameters()}
    before = {name: stack.clone() for name, stack in stacks.items()}
    name = "q_net.0.weight"
    JointOptimizer([model], stacks).step({name: th.ones_like(stacks[name])}, 0)
    assert [key for key, stack in stacks.items() if not th.equal(stack, before[key])] == [name]
