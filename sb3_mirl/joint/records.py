"""The logged values of gradient steps (losses, β and the penalty), which are computed only when they are written."""

from collections.abc import Iterator, Sequence

import torch as th

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.joint.networks import Gradients, StackedNetworks
from sb3_mirl.mirl.operators import kl_divergence, soft_policy


class TrainingRecords:
    """
    The results of the latest gradient steps, those of one call of SB3's ``train()``.

    :param models: by row
    :param networks: of all runs
    """

    def __init__(self, models: Sequence[BaseDQN], networks: StackedNetworks) -> None:
        self._models, self._networks = [*models], networks
        self._open: list[Gradients] = []
        self._results: list[Gradients] = []
        self._losses = th.zeros(0, len(models))
        self._unwritten: set[int] = set()

    def add(self, results: Gradients) -> None:
        """Keep the results of one gradient step."""
        self._open.append(results)

    def close(self) -> None:
        """Complete the results of one rollout's gradient steps."""
        self._results, self._open = self._open, []
        self._losses = th.stack([results.losses for results in self._results]).cpu()
        self._unwritten = {*range(len(self._models))}
        self._penalties: list[tuple[float, float]] | None = None
        if self._networks.n_soft:
            self._reference, self._beta = self._networks.reference_prior().clone(), self._networks.beta.clone()

    def check(self, rows: Sequence[int]) -> Iterator[tuple[int, ValueError]]:
        """The runs among the given rows whose loss was not finite, with the error."""
        if bool(self._losses.isfinite().all()):
            return
        for row in [*rows]:
            if not self._losses[:, row].isfinite().all():
                try:
                    self.write(row)
                except ValueError as error:
                    yield row, error

    def write(self, row: int) -> None:
        """
        Record in the logger of one model what its ``train()`` records.

        :raises ValueError: if a loss was not finite
        """
        if row not in self._unwritten:
            return
        self._unwritten.discard(row)
        q_values = [results.q_values[row] for results in self._results]
        values = {}
        if row < self._networks.n_soft:
            values = dict(zip(("beta", "kl"), self._beta_and_kl()[row], strict=True))
        self._models[row].record_training(self._losses[:, row].tolist(), q_values, **values)

    def skip(self, row: int) -> None:
        """Record nothing in the logger of one model, because the logger is about to clear its values."""
        self._unwritten.discard(row)

    def _beta_and_kl(self) -> list[tuple[float, float]]:
        """β and the penalty on the last batch of every run. The first call computes them for all runs."""
        if self._penalties is None:
            prior = self._reference.unsqueeze(1)
            q_values = self._results[-1].q_values[: self._networks.n_soft]
            kl = kl_divergence(soft_policy(q_values, prior, self._beta.unsqueeze(1)), prior).mean(dim=1)
            self._penalties = [*zip(self._beta.tolist(), kl.tolist(), strict=True)]
        return self._penalties
