"""A user's own file, as tests write it into a folder: a rule of each kind and a codec stage, right and wrong ones."""

RIGHT = '''
from dataclasses import dataclass

import numpy as np

import featherfed as ff


@dataclass(frozen=True)
class Nearest(ff.Aggregate):
    """The update nearest to the last round's."""

    share: float = 1.0

    def start(self, parameters):
        return {"last": np.zeros(parameters, np.float32)}

    def combine(self, state, updates):
        best = min(updates.rows, key=lambda row: float(np.abs(row - state["last"]).sum()))
        return {"last": best}, np.float32(self.share) * best


class Equal(ff.Aggregate):
    needs_all = False
    mergeable = True

    def weight(self, examples):
        return 1

    def combine(self, state, updates):
        return state, updates.rows[0]


@dataclass(frozen=True)
class Lion(ff.ServerOptimizer):
    beta: float = 0.9

    def start(self, weights):
        return {"m": np.zeros_like(weights)}

    def step(self, state, update, round_number):
        m = np.float32(self.beta) * state.arrays["m"] + np.float32(1 - self.beta) * update
        return ff.ServerState(state.weights + np.float32(self.lr) * np.sign(m), {"m": m})


class Charged(ff.Select):
    def choose(self, phones, size, key):
        known = sorted(phones, key=lambda phone: (-phone.bytes_per_s, phone.last_asked, key.draw(phone.shard)))
        return [phone.shard for phone in known[:size]]


@ff.stage("terngrad")
class TernGrad(ff.Stage):
    slot = ff.Slot.QUANTIZER
    symbol_bits = 2
    levels = 3

    def header_bytes(self, size):
        return 4 if size else 0

    def encode(self, values, generator):
        largest = np.abs(values).max(initial=0).astype("<f4")
        sent = generator.random(len(values), np.float32) * largest < np.abs(values)
        symbols = (1 + np.sign(values) * sent).astype(np.uint8)
        return largest.tobytes() if len(values) else b"", symbols

    def decode(self, header, symbols, size):
        if not size:
            return np.zeros(0, np.float32)
        largest = np.frombuffer(header, "<f4")[0]
        return np.array([-largest, 0, largest, 0], np.float32)[symbols]
'''

WRONG = """
import numpy as np

import featherfed as ff


class Short(ff.Aggregate):
    def combine(self, state, updates):
        return state, updates.rows[0][:7]


class Nan(ff.Aggregate):
    def combine(self, state, updates):
        return state, updates.rows[0] * np.float32("nan")


class Raises(ff.Aggregate):
    def combine(self, state, updates):
        return state, updates.nothing


class Half(ff.ServerOptimizer):
    def step(self, state, update, round_number):
        return state.weights


class Stranger(ff.Select):
    def choose(self, phones, size, key):
        return [99]


class Greedy(ff.Select):
    def choose(self, phones, size, key):
        return [phone.shard for phone in phones]


class Unfinished(ff.Aggregate):
    pass


@ff.stage("shortened")
class Shortened(ff.Stage):
    slot = ff.Slot.QUANTIZER
    symbol_bits = 0
    levels = 0

    def header_bytes(self, size):
        return 4 * size

    def encode(self, values, generator):
        return values.astype("<f4").tobytes(), np.zeros(0, np.uint8)

    def decode(self, header, symbols, size):
        return np.frombuffer(header, "<f4")[1:]
"""
