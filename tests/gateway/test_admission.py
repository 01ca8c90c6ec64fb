"""Places for requests and their bodies."""

from __future__ import annotations

import pytest

from gateway.admission import Admission
from gateway.errors import GatewayError


def refused(action, *arguments) -> tuple[int, str]:
    with pytest.raises(GatewayError) as error:
        action(*arguments)
    return error.value.status, error.value.code


def test_one_account_gets_half_of_the_room_for_bodies() -> None:
    admission = Admission(total=10, per_account=10, most_bytes=100)
    with admission.enter("greedy") as first, admission.enter("greedy") as second:
        first.hold(50)
        assert refused(second.hold, 1) == (429, "RESOURCE_EXHAUSTED")
        with admission.enter("other") as other:
            other.hold(50)
            with admission.enter("third") as third:
                assert refused(third.hold, 1) == (503, "OVERLOADED")
    assert (admission.bytes, admission.account_bytes, admission.held) == (0, {}, {})


def test_places_are_bounded_in_all_and_for_each_account() -> None:
    admission = Admission(total=2, per_account=1, most_bytes=100)
    with admission.enter("one"):
        assert refused(admission.enter, "one") == (429, "RESOURCE_EXHAUSTED")
        with admission.enter("two"):
            assert refused(admission.enter, "three") == (503, "OVERLOADED")
    with admission.enter("three"):
        pass
