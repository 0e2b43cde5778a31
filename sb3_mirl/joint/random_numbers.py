"""NumPy's global generator, one for each run: SB3 draws coins, random actions and replay indices from it."""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

_N_WORDS = 624


class RunGenerator:
    """
    The global generator of one run. :attr:`random` draws from it; inside of ``with generator:`` NumPy's global functions do.

    Replacing the global bit generator is fast, but NumPy then loses a pending number: it computes normally distributed numbers
    in pairs. Outside of the context, ``_pending`` holds this number. Reading it is slow, so that it is read only if code has
    drawn from the global generator.

    :param state: state of the generator, as ``np.random.get_state(legacy=False)`` returns it
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.bits = np.random.MT19937()
        self.random = np.random.RandomState(self.bits)
        self.random.set_state(dict(state))
        self._pending = dict(state) if state["has_gauss"] else None
        address = self.bits.ctypes.state_address
        # The generator's words and the position among them
        self._first_word = ctypes.c_uint32.from_address(address)
        self._position = ctypes.c_int.from_address(address + 4 * _N_WORDS)
        # Every draw changes the position; a draw after all words are used up changes the words, too
        self._can_read = self._where() == (state["state"]["key"][0], state["state"]["pos"])
        self._before = (0, 0)

    @property
    def state(self) -> dict[str, Any]:
        """As ``np.random.get_state(legacy=False)`` returns it."""
        state = self.random.get_state(legacy=False)
        return {**state, "has_gauss": 0, "gauss": 0.0} | self._gauss()

    def _gauss(self) -> dict[str, Any]:
        return {} if self._pending is None else {"has_gauss": 1, "gauss": self._pending["gauss"]}

    def _where(self) -> tuple[int, int]:
        return self._first_word.value, self._position.value

    def __enter__(self) -> "RunGenerator":
        np.random.set_bit_generator(self.bits)  # type: ignore[attr-defined]
        if self._pending is not None:
            np.random.set_state(self.state)
        self._before = self._where()
        return self

    def __exit__(self, *error: object) -> None:
        if self._pending is not None or not self._can_read or self._where() != self._before:
            state = np.random.get_state(legacy=False)
            self._pending = dict(state) if state["has_gauss"] else None  # type: ignore[call-overload]


@contextmanager
def global_generator_kept() -> Iterator[None]:
    """Puts NumPy's global generator back as it was."""
    bits = np.random.get_bit_generator()  # type: ignore[attr-defined]
    state = np.random.get_state(legacy=False)
    try:
        yield
    finally:
        np.random.set_bit_generator(bits)  # type: ignore[attr-defined]
        np.random.set_state(state)
