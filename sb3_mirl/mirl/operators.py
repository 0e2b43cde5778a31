"""
The equations of MIRL, as pure functions on torch tensors.

Source: Grau-Moya, Leibfried and Vrancx, *Soft Q-Learning with Mutual-Information Regularization*, ICLR 2019.

Shapes: ``A`` is the number of actions and always the last axis; ``...`` stands for any leading axes (batch, time, none).
Symbols: ``prior`` is ρ, a point of the simplex; ``beta`` is the inverse temperature β in 1/reward, from 0 to ∞ included;
``policy`` is π(·|s); ``q_values`` are Q(s, ·) in units of reward.

Exponentials and logarithms are taken in float64 and results returned in the dtype of the first argument; exponents are
shifted before they are exponentiated, never clipped: results are finite for |βQ| far beyond 1e6.
"""

import torch as th

#: Lower bound of L in update_beta. A batch with a very small error then moves β by at most
#: ``step_size / MIN_SQUARED_TD_ERROR``. ``benchmarks/beta_limits.py`` is the experiment behind the value.
MIN_SQUARED_TD_ERROR = 1e-6

# β = 0 and β = ∞ are replaced by these values, because 0 · ∞ is NaN; β (Q - Q') is still a normal number
SMALLEST_BETA, LARGEST_BETA = 1e-290, 1.7e308


def _shifted_exponents(
    q_values: th.Tensor, prior: th.Tensor, beta: th.Tensor | float
) -> tuple[th.Tensor, th.Tensor, th.Tensor, th.Tensor]:
    """
    The largest Q-value on the support of ρ, and β (Q - that value): at most 0, and -∞ off the support.

    :param q_values: Q(s, ·), [..., A]
    :param prior: ρ, [A] or [..., A]
    :param beta: β, a number or a tensor [...]
    :return: ρ [A] or [..., A], peak [..., 1], β [] or [..., 1] and exponents [..., A], all float64
    """
    q_values, prior = q_values.double(), prior.double()
    supported = q_values.masked_fill(prior == 0, -th.inf)
    peak = supported.amax(dim=-1, keepdim=True)
    beta = th.as_tensor(beta, dtype=th.float64, device=q_values.device).clamp(SMALLEST_BETA, LARGEST_BETA)
    beta = beta.unsqueeze(-1) if beta.dim() else beta
    return prior, peak, beta, beta * (supported - peak)


def _float_dtype(values: th.Tensor) -> th.dtype:
    """The tensor's dtype, or torch's default one if it holds integers."""
    return values.dtype if values.is_floating_point() else th.get_default_dtype()


def soft_value(q_values: th.Tensor, prior: th.Tensor, beta: th.Tensor | float) -> th.Tensor:
    """
    V(s) = β⁻¹ log Σₐ ρ(a) exp(β Q(s,a)).

    β = 0 gives Σₐ ρ(a) Q(s,a) and β = ∞ the maximum of Q over the support of ρ, both exactly.

    :param q_values: Q(s, ·), [..., A]
    :param prior: ρ, [A] or [..., A]
    :param beta: β ≥ 0, a number or a tensor: without axes, or [...], one β for each state
    :return: V(s), [...], in the units and dtype of ``q_values``
    """
    prior, peak, beta, exponents = _shifted_exponents(q_values, prior, beta)
    # Two forms of log Σ ρ exp(·): dividing by a small β would magnify the rounding of the plain one, and log1p loses all
    # digits where nearly all of ρ is far below the peak
    excess = (prior * th.expm1(exponents)).sum(dim=-1, keepdim=True)
    plain = (prior * th.exp(exponents)).sum(dim=-1, keepdim=True).log()
    log_mean_exp = th.where(excess > -0.5, th.log1p(excess.clamp(min=-0.5)), plain)
    expected = (prior * q_values.masked_fill(prior == 0, 0.0)).sum(dim=-1, keepdim=True)
    value = th.where(beta == SMALLEST_BETA, expected, peak + log_mean_exp / beta)
    return value.squeeze(-1).to(_float_dtype(q_values))


def soft_policy(q_values: th.Tensor, prior: th.Tensor, beta: th.Tensor | float) -> th.Tensor:
    """
    π(a|s) = ρ(a) exp(β Q(s,a)) / Σ_b ρ(b) exp(β Q(s,b)).

    Rows sum to 1. An action with ρ(a) = 0 gets exactly 0. β = 0 gives ρ, β = ∞ gives ρ restricted to the best actions.

    :param q_values: Q(s, ·), [..., A]
    :param prior: ρ, [A] or [..., A]
    :param beta: β ≥ 0, a number or a tensor: without axes, or [...], one β for each state
    :return: π(·|s), [..., A], in the dtype of ``q_values``
    """
    prior, _, _, exponents = _shifted_exponents(q_values, prior, beta)
    weights = prior * th.exp(exponents)
    return (weights / weights.sum(dim=-1, keepdim=True)).to(_float_dtype(q_values))


def soft_td_target(
    rewards: th.Tensor,
    dones: th.Tensor,
    discounts: th.Tensor | float,
    next_q_values: th.Tensor,
    prior: th.Tensor,
    beta: th.Tensor | float,
) -> th.Tensor:
    """
    r + (1 - done) γ V(s'), with V of :func:`soft_value`.

    :param rewards: r, [...] or, as SB3's replay buffers have it, [..., 1]
    :param dones: 1 or True where the episode ended, same shape as ``rewards``
    :param discounts: γ, or γⁿ after n steps: a number, or a tensor of the same shape as ``rewards``
    :param next_q_values: Q(s', ·), [..., A]
    :param prior: ρ, [A] or [..., A]
    :param beta: β ≥ 0, a number or a tensor without axes
    :return: the target, same shape as ``rewards``
    :raises ValueError: if shapes disagree, which broadcasting would otherwise hide
    """
    leading = next_q_values.shape[:-1]
    discounts_fit = getattr(discounts, "shape", ()) in ((), rewards.shape)
    if rewards.shape not in (leading, (*leading, 1)) or dones.shape != rewards.shape or not discounts_fit:
        raise ValueError(
            f"rewards, dones and discounts must have the shape {tuple(leading)} or {(*leading, 1)} of next_q_values "
            f"without its last axis, got rewards {tuple(rewards.shape)}, dones {tuple(dones.shape)}, "
            f"discounts {tuple(getattr(discounts, 'shape', ()))}"
        )
    next_values = soft_value(next_q_values, prior, beta).reshape(rewards.shape)
    return rewards + (1 - dones.to(next_values.dtype)) * discounts * next_values


def kl_divergence(policy: th.Tensor, prior: th.Tensor) -> th.Tensor:
    """
    KL(π‖ρ) = Σₐ π(a|s) log(π(a|s) / ρ(a)), in nats, with 0 · log 0 = 0.

    Averaged over visited states it estimates the mutual information I(S;A).

    :param policy: π(·|s), [..., A]
    :param prior: ρ, [A] or [..., A]
    :return: the divergence, [...], in the dtype of ``policy``; ∞ where π(a|s) > 0 = ρ(a)
    """
    p, rho = policy.double(), prior.double()
    positive = p > 0
    log_ratio = th.where(positive, p, 1.0).log() - th.where(positive, rho, 1.0).log()
    # Σ (π log(π/ρ) - π + ρ) is the same sum on the simplex, and none of its terms is negative. Near π = ρ the digits of these
    # terms cancel: there they are replaced by their series in (π - ρ)/ρ
    ratio = (p - rho) / th.where(rho > 0, rho, 1.0)
    series = rho * ratio.square() * (0.5 - ratio / 6.0)
    terms = th.where((ratio.abs() < 1e-5) & positive & (rho > 0), series, p * log_ratio - p + rho)
    return terms.sum(dim=-1).clamp(min=0.0).to(policy.dtype)


def masked_prior(prior: th.Tensor, masks: th.Tensor) -> th.Tensor:
    """
    ρ(a|s) ∝ ρ(a) · mask(s): the prior among the valid actions of a state.

    Rows sum to 1. An action that is not valid gets exactly 0. Where ρ has no mass on the valid actions, all of them are
    equally likely.

    :param prior: ρ, [A] or [..., A]
    :param masks: which actions are valid, [..., A], True and False or 1 and 0. Each row must have a valid action; without
        one the result is NaN. Callers check this, because a traced function (compilation, export) cannot test values
    :return: ρ(·|s), [..., A], float64
    """
    masks = masks.double()
    weights = prior.double() * masks
    weights = th.where(weights.sum(dim=-1, keepdim=True) == 0, masks, weights)
    return weights / weights.sum(dim=-1, keepdim=True)


def update_prior(prior: th.Tensor, policy: th.Tensor, step_size: float | th.Tensor) -> th.Tensor:
    """
    ρ ← (1 - α_ρ) ρ + α_ρ π(·|s).

    k states at once act as k steps: weight 1 - (1 - α_ρ)ᵏ on the mean of their policies. The result is normalised, so
    that rounding cannot leave the simplex. A policy that is not finite leaves ρ as it was.

    :param prior: ρ, [A]
    :param policy: π(·|s), [A] or [..., A]
    :param step_size: α_ρ in [0, 1], per state
    :return: the new ρ, [A], in the dtype of ``prior``
    :raises ValueError: if the numbers of actions differ, which broadcasting might hide
    """
    if policy.shape[-1:] != prior.shape:
        raise ValueError(f"policy must have {tuple(prior.shape)} actions on its last axis, got {tuple(policy.shape)}")
    policies = policy.reshape(-1, policy.shape[-1]).to(prior.dtype)
    n_states = len(policies)
    weight = 1.0 - (1.0 - step_size) ** n_states if n_states > 1 else step_size
    moved = th.lerp(prior, policies.mean(dim=0) if n_states > 1 else policies[0], weight)
    total = moved.sum()
    # total - total is 0 unless it is infinite or not a number
    return th.where(total - total == 0, moved / total, prior)


def update_beta(
    beta: th.Tensor | float,
    squared_td_error: th.Tensor | float,
    step_size: float | th.Tensor,
    beta_max: float | th.Tensor,
) -> th.Tensor:
    """
    β ← (1 - α_β) β + α_β / L, L floored at :data:`MIN_SQUARED_TD_ERROR`, the result capped at ``beta_max``.

    An L that is not a number leaves β as it was. The arguments may also be tensors [R], of R runs.

    :param beta: β, a number or a tensor without axes
    :param squared_td_error: L, the mean squared TD error of one batch, in reward²
    :param step_size: α_β in [0, 1], per gradient step
    :param beta_max: the largest β
    :return: the new β, a float64 tensor without axes
    """
    beta = th.as_tensor(beta, dtype=th.float64)
    error = th.as_tensor(squared_td_error, dtype=th.float64, device=beta.device)
    moved = (1.0 - step_size) * beta + step_size / error.clamp(min=MIN_SQUARED_TD_ERROR)
    return th.where(th.isnan(error), beta, moved.clamp(max=beta_max))


def update_beta_normalized(
    beta: th.Tensor | float,
    squared_td_error: th.Tensor | float,
    step_size: float | th.Tensor,
    beta_max: float | th.Tensor,
    scale: float | th.Tensor,
) -> th.Tensor:
    """
    β ← (1 - α_β) β + α_β k / √L: :func:`update_beta` with a target in 1/reward, the unit of β.

    If all rewards are multiplied by c, so are Q and √L, and β · Q does not change, as long as √L / k is above the lower bound
    :data:`MIN_SQUARED_TD_ERROR`.

    :param beta: β, a number or a tensor without axes
    :param squared_td_error: L, the mean squared TD error of one batch, in reward²
    :param step_size: α_β in [0, 1], per gradient step
    :param beta_max: the largest β
    :param scale: k > 0, without unit
    :return: the new β, a float64 tensor without axes
    """
    error = th.as_tensor(squared_td_error, dtype=th.float64)
    return update_beta(beta, error.sqrt() / scale, step_size, beta_max)
