"""A part of `make faults` in every test run: kills at places that are spread over the whole Job, and its checks broken
on purpose.
"""

from collections.abc import AsyncIterator

import pytest

from tests.faults.campaign import KINDS, Campaign, Warm
from tests.faults.injection import BROKEN, Fault

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
async def warm() -> AsyncIterator[Warm]:
    async with Warm.started() as warm:
        yield warm


async def campaign(warm: Warm, runtime: str) -> Campaign:
    made = Campaign(warm, runtime)
    await made.prepare()
    return made


async def test_a_job_goes_on_from_whatever_kills_it(warm: Warm) -> None:
    local = await campaign(warm, "local")
    # Relatively prime to the number of kinds: each kind meets writes all over the Job.
    points = list(local.points())[::17]
    assert {(f.victim, f.signal_name, f.moment) for f in points} == set(KINDS)
    failed = [v for fault in points if (v := await local.strike(fault)).problems]
    assert not failed


@pytest.mark.docker
@pytest.mark.parametrize(
    "fault",
    [
        Fault("boss", 9, "orchestrator", "KILL"),
        Fault("leaf", 6, "orchestrator", "KILL"),
        Fault("right", 8, "orchestrator", "TERM"),
        Fault("left", 6, "runner", "KILL"),
        Fault("right", 7, "runner", "TERM"),
    ],
    ids=str,
)
async def test_a_job_in_containers_goes_on_from_what_kills_it(warm: Warm, fault: Fault) -> None:
    docker = await campaign(warm, "docker")
    assert (await docker.strike(fault)).problems == []


@pytest.mark.parametrize(
    ("broken", "fault", "noticed"),
    [
        ("finished delegates are run again", Fault("left", 24, "orchestrator", "KILL"), "does not verify"),
        (
            "calls under way are repeated silently",
            Fault("right", 6, "orchestrator", "KILL", "before"),
            "was carried out 2 times",
        ),
        ("an acknowledged event is lost", Fault("boss", 11, "orchestrator", "KILL", "before"), "is not on disk"),
    ],
)
async def test_the_checks_notice_a_broken_product(warm: Warm, broken: str, fault: Fault, noticed: str) -> None:
    assert broken in BROKEN
    local = await campaign(warm, "local")
    assert (await local.strike(fault)).problems == []
    assert noticed in " ".join((await local.strike(fault, broken)).problems)
