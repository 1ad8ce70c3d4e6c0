"""Runs of circles with real masks where anything may happen: silent phones, liars, deadlines at bad times, kills."""

import random

import pytest

from featherfed.errors import OpeningError, SecrecyError
from featherfed.secure.opening import Upload, open_circle
from featherfed.server.rounds.circle import (
    Answered,
    Arrived,
    Back,
    Circle,
    CircleEvent,
    CirclePhase,
    Expired,
    Gone,
    Opened,
    SendList,
    SentList,
    UploadsOver,
)
from featherfed.server.rounds.circle_machine import advance, resumed
from tests.secure.rounds import Phones, context_of, sum_of


class Run:
    """One circle, a network that takes any message next, and a server that may be killed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        members = tuple(self.draw.sample(range(100), self.draw.randint(5, 12)))
        self.phones = Phones(context_of(members), count=9)
        context = self.phones.context
        self.circle = Circle(members=members, threshold=context.threshold, least=context.least)
        self.silent = {m for m in members if self.draw.random() < 0.15}
        self.liars = {m for m in members if self.draw.random() < 0.08}
        self.uploads: dict[int, Upload] = {}
        self.answers: dict[tuple[int, int], bytes] = {}
        self.lists: list[tuple[int, SentList]] = []
        self.events: list[CircleEvent] = []
        self.sum: list[int] | None = None
        self.kills = 0

    def post(self, event: CircleEvent) -> None:
        self.circle, actions = advance(self.circle, event)
        if self.draw.random() < 0.1:
            self.kills += 1
            self.circle, actions = resumed(
                Circle.restored(
                    members=self.circle.members, threshold=self.circle.threshold, least=self.circle.least,
                    arrived=self.circle.arrived, lists=self.circle.lists, answered=self.answers,
                    ended=self.circle.phase if self.circle.over else None,
                )
            )  # fmt: skip
            # What was on its way to the server is sent again by whoever comes back.
            self.events = [event for event in self.events if not isinstance(event, Opened)]
            self.lists = []
        for action in actions:
            if isinstance(action, SendList):
                self.lists += [(shard, action.list_) for shard in action.to]
            else:
                self.events.append(self.open(action.survivors))

    def open(self, survivors: frozenset[int]) -> Opened:
        seeds, shares = self.circle.secrets(self.answers)
        try:
            opened = open_circle(self.phones.context, self.uploads, survivors, seeds, shares)
        except OpeningError as error:
            return Opened(error.at_fault, error.lacking, not error.lacking)
        self.sum = opened.residues.tolist()
        return Opened(opened.liars)

    def hear(self, shard: int, list_: SentList) -> None:
        if shard in self.silent and self.draw.random() < 0.7:
            return
        try:
            data = self.phones.answer(shard, list_)
        except SecrecyError:
            # Overtaken by a later one.
            return
        if shard in self.liars and (list_.final or self.draw.random() < 0.2):
            data = self.draw.randbytes(len(data))
        self.answers.setdefault((shard, list_.version), data)
        self.events.append(Answered(shard, list_.version))

    def play(self) -> None:
        for shard in self.circle.members:
            if shard not in self.silent or self.draw.random() < 0.6:
                self.uploads[shard] = self.phones.upload(shard)
                self.post(Arrived(shard))
        self.post(UploadsOver())
        for _ in range(2000):
            if self.circle.over:
                return
            any_ = self.draw.choice(self.circle.members)
            match self.draw.random():
                case luck if luck < 0.45 and self.lists:
                    self.hear(*self.lists.pop(self.draw.randrange(len(self.lists))))
                case luck if luck < 0.9 and self.events:
                    self.post(self.events.pop(self.draw.randrange(len(self.events))))
                case luck if luck < 0.93:
                    self.post(Gone(any_))
                case luck if luck < 0.97:
                    self.post(Back(any_))
                case _ if not self.circle.lists:
                    # Killed between the last upload and the list: the round says again that uploads are over.
                    self.post(UploadsOver())
                case _ if self.draw.random() < 0.3 or not (self.lists or self.events):
                    self.post(Expired(self.circle.lists[-1].version))
        raise AssertionError(f"no end: {self.circle}")


@pytest.mark.parametrize("part", range(4))
def test_a_circle_ends_and_what_it_opens_is_exact(part: int) -> None:
    ended: dict[CirclePhase, int] = {CirclePhase.SUMMED: 0, CirclePhase.FAILED: 0}
    for seed in range(100 * part, 100 * part + 100):
        run = Run(seed)
        run.play()
        ended[run.circle.phase] += 1
        if run.circle.phase is CirclePhase.SUMMED:
            assert run.sum == sum_of(run.phones.updates[shard] for shard in run.circle.spent)
        seeds, shares = run.circle.secrets(run.answers)
        assert not {of for _, of in seeds} & {of for _, of in shares}
        # Of an honest phone nobody says that it lied; of two liars in one circle that are believed, more can be framed.
        if len(run.liars) < 2:
            assert run.circle.at_fault <= run.liars
    assert min(ended.values()) > 10, ended
