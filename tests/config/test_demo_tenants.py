"""The demo tenants are good enough to be called: complete, speakable, distinct."""

from __future__ import annotations

import re

import pytest

from config.loader import DEMO_NODE_FILE, load_node_config, load_tenants
from config.tenant import TenantConfig

TENANTS = load_tenants(load_node_config(DEMO_NODE_FILE, {}).tenants)


@pytest.mark.parametrize("tenant", TENANTS, ids=lambda tenant: tenant.tenant_id)
def test_a_demo_tenant_is_complete(tenant: TenantConfig) -> None:
    assert len(tenant.services) >= 5
    assert all(service.price and service.keywords for service in tenant.services)
    assert len(tenant.faq) >= 6
    assert all(entry.keywords for entry in tenant.faq)
    assert tenant.directions
    assert tenant.human.number
    assert any(tenant.hours.values())


@pytest.mark.parametrize("tenant", TENANTS, ids=lambda tenant: tenant.tenant_id)
def test_what_is_said_can_be_spoken(tenant: TenantConfig) -> None:
    assert tenant.business_name in tenant.greeting
    assert 1 <= len(re.findall(r"[.!?](?:\s|$)", tenant.greeting)) <= 2
    assert len(tenant.greeting.split()) <= 20
    spoken = [tenant.greeting, tenant.address, tenant.directions or ""]
    spoken += [entry.answer for entry in tenant.faq]
    spoken += [text for service in tenant.services for text in (service.description, service.price or "")]
    for text in spoken:
        assert not re.search(r"[*_#<>\[\]{}|\\^~=@/$\u20ac]|https?:", text), text


def test_no_service_or_answer_is_reached_by_another_ones_keyword() -> None:
    for tenant in TENANTS:
        words = [word.lower() for service in tenant.services for word in service.keywords]
        assert len(words) == len(set(words))
        words = [word.lower() for entry in tenant.faq for word in entry.keywords]
        assert len(words) == len(set(words))


def test_the_plumber_knows_emergencies_and_the_two_differ() -> None:
    dentist, plumber = sorted(TENANTS, key=lambda tenant: tenant.numbers)
    assert plumber.emergency is not None
    assert {"burst pipe", "flooding", "gas smell"} <= set(plumber.emergency.keywords)
    assert plumber.emergency.number
    assert dentist.greeting != plumber.greeting
    assert dentist.hours != plumber.hours
