"""The address that a server listens on."""

import socket

import pytest

from steps.core.errors import StepError
from steps.serving.server import _listener


def test_a_taken_port_names_the_key_and_what_make_calls_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StepError, match=rf"serve\.port={port}: .*\(make serve PORT=0\)"):
            _listener("127.0.0.1", port)
    _listener("127.0.0.1", 0).close()


def test_an_address_that_is_not_this_machines_names_the_host() -> None:
    for host in ("nowhere.invalid", "203.0.113.7"):
        with pytest.raises(
            StepError, match=rf"serve\.host={host} .*pass an address of this machine"
        ):
            _listener(host, 0)
