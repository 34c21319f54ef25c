"""Each test of the contract runs once against each server that can be started here."""

import pytest

from tests.contract.fhir import Fhir
from tests.contract.hook import Hook
from tests.peers.servers import usable


@pytest.fixture(params=usable())
def fhir(request, server_named):
    fhir = Fhir(server_named(request.param))
    yield fhir
    fhir.close()


@pytest.fixture
def hook():
    with Hook() as hook:
        yield hook
