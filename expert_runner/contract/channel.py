"""Delivery in order and exactly once over a link that may drop, repeat and reorder frames: a pure state machine.

Both sides of the bus hold one :class:`Channel` per Run. `DATA` frames are numbered from 1; every frame acknowledges,
cumulatively, what was taken from the other side. What is not acknowledged in time is sent again (go-back-N), so a
connection that broke and came back loses nothing. There is no clock here: the caller brings it.
"""

from collections import deque

from expert_runner.contract.errors import WireError
from expert_runner.contract.wire import Header, Kind, encode_header

WINDOW = 256
"""Frames that may be under way without an acknowledgement."""

RESEND_S = 2.0
"""Seconds after which an unacknowledged frame is sent again: longer than a heartbeat, which acknowledges too."""

Frame = tuple[bytes, bytes]


class Channel:
    """One direction's numbers and the other's, and what may have to be sent again."""

    def __init__(self) -> None:
        self._sent = 0
        self._acknowledged = 0
        self._taken = 0
        self._dealt_with = 0
        self._unacknowledged: deque[tuple[int, bytes]] = deque()
        self._oldest_sent_at = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether the other side has everything."""
        return not self._unacknowledged

    def send(self, body: bytes, now: float) -> Frame:
        """`body` as the next frame.

        Raises:
            WireError: :data:`WINDOW` frames are unacknowledged; the other side does not keep up or is gone.
        """
        if len(self._unacknowledged) >= WINDOW:
            raise WireError(f"{WINDOW} frames are unacknowledged")
        if not self._unacknowledged:
            self._oldest_sent_at = now
        self._sent += 1
        self._unacknowledged.append((self._sent, body))
        return self._frame(self._sent, body)

    def beat(self) -> Frame:
        """A frame that only acknowledges and says that this side lives."""
        return encode_header(Header(Kind.BEAT, 0, self._dealt_with)), b""

    def unacknowledged(self) -> list[Frame]:
        """What was sent and is not acknowledged, as frames to send again."""
        return [self._frame(seq, body) for seq, body in self._unacknowledged]

    def due(self, now: float) -> list[Frame]:
        """The frames to send again now; usually none."""
        if not self._unacknowledged or now - self._oldest_sent_at < RESEND_S:
            return []
        self._oldest_sent_at = now
        return self.unacknowledged()

    def acknowledged(self, ack: int, now: float) -> None:
        """Take the other side's acknowledgement.

        Raises:
            WireError: it acknowledges what was never sent.
        """
        if ack > self._sent:
            raise WireError(f"frame {ack} is acknowledged and {self._sent} were sent")
        if ack <= self._acknowledged:
            return
        self._acknowledged = ack
        while self._unacknowledged and self._unacknowledged[0][0] <= ack:
            self._unacknowledged.popleft()
        self._oldest_sent_at = now

    def take(self, seq: int) -> bool:
        """Whether frame `seq` is the next one. A repeated frame and one after a gap are not: what is needed comes
        again.

        Raises:
            WireError: the other side cannot have sent it within its window.
        """
        if seq == 0 or seq > self._dealt_with + WINDOW:
            raise WireError(f"frame {seq} is outside the window after {self._dealt_with}")
        if seq != self._taken + 1:
            return False
        self._taken = seq
        return True

    def dealt_with(self) -> None:
        """The oldest frame taken has been dealt with (stored, where it is to be stored): acknowledge it from now on."""
        self._dealt_with += 1

    def _frame(self, seq: int, body: bytes) -> Frame:
        return encode_header(Header(Kind.DATA, seq, self._dealt_with)), body
