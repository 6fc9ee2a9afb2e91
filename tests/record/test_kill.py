"""A recording that is killed keeps every step that is older than a second."""

from __future__ import annotations

import pytest

from benchmarks import kill_recorder


@pytest.mark.slow
def test_kill_at_any_moment_loses_at_most_the_last_second() -> None:
    kills = kill_recorder.killed(3, seed=1)

    assert [each.faults for each in kills] == [(), (), ()]
    assert all(each.read > 0 for each in kills if each.after_s > kill_recorder.PROMISED_S)
    assert all(each.ended > 10 for each in kills)
