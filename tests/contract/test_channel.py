"""Delivery over a link that does everything to frames that a link can do."""

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from expert_runner.contract.channel import RESEND_S, WINDOW, Channel, Frame
from expert_runner.contract.errors import WireError
from expert_runner.contract.wire import Header, Kind, decode_header

SIDES = st.sampled_from([0, 1])


class Side:
    def __init__(self) -> None:
        self.channel = Channel()
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self.waiting: deque[bytes] = deque()
        self.inbox: list[Frame] = []
        """Frames on their way to this side."""

    def take(self, frame: Frame, now: float) -> None:
        header, body = decode_header(frame[0]), frame[1]
        self.channel.acknowledged(header.ack, now)
        if header.kind is Kind.DATA and self.channel.take(header.seq):
            self.waiting.append(body)

    def deal_with_one(self) -> None:
        self.received.append(self.waiting.popleft())
        self.channel.dealt_with()


class Link(RuleBasedStateMachine):
    """Two sides and what is on its way between them, in either direction."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = (Side(), Side())
        self.now = 0.0

    def _put(self, to: int, frames: list[Frame]) -> None:
        self.sides[to].inbox += frames

    @rule(side=SIDES, count=st.sampled_from([1, 1, 3, WINDOW]))
    def sends(self, side: int, count: int) -> None:
        me = self.sides[side]
        for _ in range(count):
            body = f"{side}.{len(me.sent)}".encode()
            under_way = len(me.channel.unacknowledged())
            try:
                frame = me.channel.send(body, self.now)
            except WireError:
                assert under_way == WINDOW
                return
            assert under_way < WINDOW
            me.sent.append(body)
            self._put(1 - side, [frame])

    @precondition(lambda self: any(side.inbox for side in self.sides))
    @rule(data=st.data())
    def a_frame_arrives(self, data: st.DataObject) -> None:
        """Any of those under way: the link keeps no order. It may come again later."""
        me = data.draw(st.sampled_from([side for side in self.sides if side.inbox]))
        place = data.draw(st.one_of(st.just(0), st.integers(0, len(me.inbox) - 1)))
        frame = me.inbox[place] if data.draw(st.booleans()) else me.inbox.pop(place)
        me.take(frame, self.now)

    @rule(side=SIDES)
    def everything_under_way_arrives(self, side: int) -> None:
        me = self.sides[side]
        frames, me.inbox = me.inbox, []
        for frame in frames:
            me.take(frame, self.now)

    @rule(side=SIDES, data=st.data())
    def frames_are_lost(self, side: int, data: st.DataObject) -> None:
        me = self.sides[side]
        keep = data.draw(st.integers(0, 3))
        me.inbox = me.inbox[:keep]

    @rule(side=SIDES, count=st.integers(1, WINDOW))
    def deals_with_some(self, side: int, count: int) -> None:
        me = self.sides[side]
        for _ in range(min(count, len(me.waiting))):
            me.deal_with_one()

    @rule(side=SIDES)
    def beats(self, side: int) -> None:
        self._put(1 - side, [self.sides[side].channel.beat()])

    @rule(side=SIDES, seconds=st.sampled_from([0.0, 1.0, RESEND_S, 10.0]))
    def time_passes(self, side: int, seconds: float) -> None:
        self.now += seconds
        self._put(1 - side, self.sides[side].channel.due(self.now))

    @rule(side=SIDES)
    def the_connection_comes_back(self, side: int) -> None:
        self._put(1 - side, self.sides[side].channel.unacknowledged())

    @invariant()
    def every_body_is_taken_once_and_in_order(self) -> None:
        for me, other in (self.sides, self.sides[::-1]):
            taken = me.received + list(me.waiting)
            assert taken == other.sent[: len(taken)]

    @invariant()
    def buffers_are_bounded(self) -> None:
        for side in self.sides:
            assert len(side.channel.unacknowledged()) <= WINDOW
            assert len(side.waiting) <= WINDOW

    @invariant()
    def what_is_not_dealt_with_is_kept_by_the_sender(self) -> None:
        """So nothing is lost with a side that dies before it has stored what it took."""
        for me, other in (self.sides, self.sides[::-1]):
            kept = [body for _, body in other.channel.unacknowledged()]
            assert other.sent[len(other.sent) - len(kept) :] == kept
            assert len(other.sent) - len(kept) <= len(me.received)

    def teardown(self) -> None:
        """Over a link that works again, everything arrives."""
        for _ in range(3):
            self.now += 2 * RESEND_S
            for number, me in enumerate(self.sides):
                other = self.sides[1 - number]
                for frame in me.channel.due(self.now):
                    other.take(frame, self.now)
                while other.waiting:
                    other.deal_with_one()
                me.take(other.channel.beat(), self.now)
        for me, other in (self.sides, self.sides[::-1]):
            assert me.received == other.sent
            assert other.channel.is_settled
            assert not other.channel.due(self.now + 2 * RESEND_S)


TestLink = Link.TestCase
TestLink.settings = settings(max_examples=50, stateful_step_count=40, deadline=None, report_multiple_bugs=False)


def header(frame: Frame) -> Header:
    return decode_header(frame[0])


def test_frames_are_numbered_from_one_and_acknowledge_what_was_dealt_with() -> None:
    channel = Channel()
    assert channel.take(1)
    assert header(channel.send(b"a", 0.0)) == (Kind.DATA, 1, 0)
    channel.dealt_with()
    assert header(channel.send(b"b", 0.0)) == (Kind.DATA, 2, 1)
    assert header(channel.beat()) == (Kind.BEAT, 0, 1)
    assert [header(frame) for frame in channel.unacknowledged()] == [(Kind.DATA, 1, 1), (Kind.DATA, 2, 1)]


def test_no_more_is_sent_than_the_window_holds() -> None:
    channel = Channel()
    for _ in range(WINDOW):
        channel.send(b"", 0.0)
    with pytest.raises(WireError, match=f"{WINDOW} frames are unacknowledged"):
        channel.send(b"", 0.0)
    channel.acknowledged(1, 0.0)
    assert header(channel.send(b"", 0.0)).seq == WINDOW + 1


def test_a_frame_beyond_the_window_is_refused() -> None:
    channel = Channel()
    assert not channel.take(WINDOW)
    with pytest.raises(WireError, match="outside the window"):
        channel.take(WINDOW + 1)
    assert channel.take(1)
    with pytest.raises(WireError, match="outside the window"):
        channel.take(WINDOW + 1)
    channel.dealt_with()
    assert not channel.take(WINDOW + 1)


def test_a_sequenced_frame_without_a_number_is_refused() -> None:
    with pytest.raises(WireError, match="outside the window"):
        Channel().take(0)


def test_an_acknowledgement_of_what_was_never_sent_is_refused() -> None:
    channel = Channel()
    channel.send(b"", 0.0)
    with pytest.raises(WireError, match="frame 2 is acknowledged and 1 were sent"):
        channel.acknowledged(2, 0.0)
    assert len(channel.unacknowledged()) == 1


def test_an_old_acknowledgement_changes_nothing() -> None:
    channel = Channel()
    channel.send(b"a", 0.0)
    channel.send(b"b", 0.0)
    channel.acknowledged(2, 0.0)
    channel.acknowledged(1, 0.0)
    assert channel.is_settled


def test_frames_acknowledged_one_by_one_are_all_acknowledged() -> None:
    channel = Channel()
    for _ in range(3):
        channel.send(b"", 0.0)
    for ack in (1, 2, 3):
        channel.acknowledged(ack, 0.0)
        assert len(channel.unacknowledged()) == 3 - ack


def test_a_frame_is_sent_again_when_it_is_due_and_not_before() -> None:
    channel = Channel()
    channel.send(b"a", 10.0)
    assert not channel.due(10.0 + RESEND_S - 0.1)
    assert [body for _, body in channel.due(10.0 + RESEND_S)] == [b"a"]
    assert not channel.due(10.0 + RESEND_S)
    assert channel.due(10.0 + 2 * RESEND_S)
    channel.acknowledged(1, 20.0)
    assert not channel.due(100.0)


def test_the_wait_for_an_acknowledgement_begins_anew_with_each_one() -> None:
    channel = Channel()
    channel.send(b"a", 0.0)
    channel.send(b"b", 0.0)
    channel.acknowledged(1, RESEND_S - 0.5)
    assert not channel.due(RESEND_S)
    assert [body for _, body in channel.due(2 * RESEND_S - 0.5)] == [b"b"]
