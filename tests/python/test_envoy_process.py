"""Starting and stopping a real Envoy."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from metaprotocol.envoy.process import EnvoyError, EnvoyProcess


def config(**extra: Any) -> dict[str, Any]:
    return {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        **extra,
    }


ECHO = {
    "listeners": [
        {
            "name": "echo",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [
                {
                    "filters": [
                        {
                            "name": "echo",
                            "typed_config": {
                                "@type": "type.googleapis.com/"
                                "envoy.extensions.filters.network.echo.v3.Echo"
                            },
                        }
                    ]
                }
            ],
        }
    ]
}


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_it_serves_when_started_and_is_gone_when_stopped() -> None:
    with EnvoyProcess(config(static_resources=ECHO)) as envoy:
        pid, directory = envoy.pid, envoy.directory
        assert envoy.listener_port("echo") > 0
        assert envoy.stats("^server.live$") == {"server.live": 1}
        assert "envoy_server_live" in envoy.stats_prometheus()
        assert envoy.clusters() == {}
        assert envoy.config_dump()["configs"]
        assert directory.is_dir()
        assert envoy.returncode is None
    assert gone(pid)
    assert envoy.returncode == 0
    assert not directory.exists()


def test_two_run_side_by_side() -> None:
    with EnvoyProcess(config()) as one, EnvoyProcess(config()) as other:
        assert one.admin_port != other.admin_port
        one.check()
        other.check()


def test_draining_is_passed_on() -> None:
    with EnvoyProcess(config(static_resources=ECHO)) as envoy:
        envoy.drain_listeners(graceful=False)
        deadline = time.monotonic() + 60
        while not envoy.stats("listener_stopped")["listener_manager.listener_stopped"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_bad_configuration_is_reported_with_the_log(tmp_path: Path) -> None:
    envoy = EnvoyProcess(config(static_resources={"lsiteners": []}), directory=tmp_path)
    with pytest.raises(EnvoyError, match=r"(?s)ended with exit code 1.*lsiteners"), envoy:
        pass
    assert "lsiteners" in envoy.log()
    assert "envoy.filters.network" not in envoy.log_tail(), "the inventory is left out"
    assert tmp_path.is_dir(), "a folder that was given is kept"


def test_its_sudden_end_is_noticed() -> None:
    with EnvoyProcess(config()) as envoy:
        os.kill(envoy.pid, signal.SIGKILL)
        while envoy.returncode is None:
            time.sleep(0.01)
        with pytest.raises(EnvoyError, match="by signal SIGKILL"):
            envoy.check()
        with pytest.raises(EnvoyError, match="by signal SIGKILL"):
            envoy.stats()


def test_one_that_does_not_end_is_killed() -> None:
    with EnvoyProcess(config()) as envoy:
        os.kill(envoy.pid, signal.SIGSTOP)
        assert envoy.stop(grace=0.1) == -signal.SIGKILL


def test_one_that_never_gets_ready_is_stopped() -> None:
    # A cluster whose hosts never come keeps Envoy from being ready.
    waiting = {
        "clusters": [
            {
                "name": "eds",
                "type": "EDS",
                "eds_cluster_config": {
                    "eds_config": {
                        "resource_api_version": "V3",
                        "initial_fetch_timeout": "0s",
                        "api_config_source": {
                            "api_type": "GRPC",
                            "transport_api_version": "V3",
                            "grpc_services": [{"envoy_grpc": {"cluster_name": "nobody"}}],
                        },
                    }
                },
            },
            {
                "name": "nobody",
                "type": "STATIC",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/"
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    }
                },
            },
        ]
    }
    for patience in (1.5, 6.0, 30.0):  # on a busy machine it opens no admin page in the first
        envoy = EnvoyProcess(config(static_resources=waiting), ready_timeout=patience)
        with pytest.raises(EnvoyError, match=f"not ready after {patience} s: ") as raised:
            envoy.start()
        assert envoy.returncode is not None
        envoy.clean()
        if "its state is PRE_INITIALIZING" in str(raised.value):
            break
        assert "it opened no admin page" in str(raised.value)
    else:
        pytest.fail("it opened no admin page")


def test_admin_refusals_are_errors() -> None:
    with EnvoyProcess(config()) as envoy:
        with pytest.raises(EnvoyError, match="/nowhere answered 404"):
            envoy.admin("/nowhere")
        with pytest.raises(EnvoyError, match="no TCP listener 'echo'"):
            envoy.listener_port("echo")
    with pytest.raises(EnvoyError, match="not started"):
        _ = EnvoyProcess(config()).pid
