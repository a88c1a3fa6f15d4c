"""What is tried in a kernel is tried in both families."""

from __future__ import annotations

import pytest

from sampan.lib.addressing import IPV4, IPV6


@pytest.fixture(params=[IPV4, IPV6])
def family(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found
