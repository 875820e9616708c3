"""Every law of tests/laws holds, for whatever case hypothesis draws."""

import pytest
from hypothesis import HealthCheck, given, settings

import laws


@pytest.mark.parametrize("name", laws.LAWS)
def test_the_law_holds(name):
    law = laws.LAWS[name]
    relaxed = settings(
        max_examples=law.examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    relaxed(given(law.cases)(law.check))()
