"""The queue between threads: order, bound, and both ways to end."""

from __future__ import annotations

import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from napari_rbcflow.pipeline.channel import Channel


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5), st.integers(0, 60), st.integers(1, 7))
def test_all_items_arrive_in_order_and_never_more_than_fit_wait(capacity: int, n: int, most: int) -> None:
    channel: Channel[int] = Channel(capacity)
    longest = 0

    def produce() -> None:
        for i in range(n):
            assert channel.put(i)
        channel.close()

    producer = threading.Thread(target=produce)
    producer.start()
    got: list[int] = []
    while batch := channel.take(most):
        longest = max(longest, len(channel))
        got += batch
    producer.join(5)
    assert got == list(range(n))
    assert longest <= capacity


def test_abort_lets_go_of_a_waiting_producer_and_keeps_what_was_not_taken() -> None:
    channel: Channel[int] = Channel(2)
    results: list[bool] = []
    producer = threading.Thread(target=lambda: results.extend(channel.put(i) for i in range(3)))
    producer.start()
    while len(channel) < 2:
        time.sleep(0.001)
    channel.abort()
    producer.join(5)
    assert results == [True, True, False]
    assert channel.take() == []
    assert channel.leftover() == [0, 1]


def test_offer_is_refused_where_there_is_no_room() -> None:
    channel: Channel[str] = Channel(1)
    assert channel.offer("a")
    assert not channel.offer("b")
    channel.close()
    assert list(channel) == ["a"]
    assert not channel.offer("c")
