"""Dependencies point the way docs/architecture.md says, and the check that says so can fail."""

from __future__ import annotations

from pathlib import Path

import check_dependencies
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_this_tree_has_only_allowed_dependencies() -> None:
    found = [str(violation) for violation in check_dependencies.violations(ROOT)]
    assert found == []


def test_the_check_reads_every_area_of_this_tree() -> None:
    for area in ("src/codec", "codecs", "envoy_ext", "python/metaprotocol"):
        assert any((ROOT / area).rglob("*")), f"{area} is gone; the check looks at nothing there"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("codecs/dubbo/dubbo_codec.cc", '#include "src/route/route.h"'),
        ("codecs/dubbo/dubbo_codec.cc", '#include "src/engine.h"'),
        ("codecs/dubbo/dubbo_codec.cc", '#include "codecs/thrift/wire.h"'),
        ("codecs/dubbo/dubbo_codec.cc", '#include "envoy_ext/abi/abi.h"'),
        ("codecs/dubbo/dubbo_codec.cc", "#include <src/engine.h>"),
        ("codecs/dubbo/dubbo_codec.cc", '#  include "hessian2.h"'),
        ("src/session/session.cc", '#include "codecs/dubbo/frame.h"'),
        ("src/session/session.h", '#include "envoy_ext/abi/abi.h"'),
        ("src/codec/codec.h", '#include "src/host/host.h"'),
        ("envoy_ext/worker/hub.cc", '#include "codecs/dubbo/frame.h"'),
        ("envoy_ext/worker/hub.cc", '#include "tests/cpp/support/fake_codec.h"'),
        ("python/metaprotocol/resources/routes.py", "from metaprotocol.translate import snapshot"),
        ("python/metaprotocol/resources/routes.py", "from ..envoy import binary"),
        ("python/metaprotocol/resources/routes.py", "from metaprotocol import envoy"),
        ("python/metaprotocol/translate/snapshot.py", "import metaprotocol.xds.server"),
        ("python/metaprotocol/translate/snapshot.py", "def f():\n    import metaprotocol.cli"),
        ("python/metaprotocol/novelty/thing.py", "import os"),
        ("python/metaprotocol/__init__.py", "from metaprotocol.cli import main"),
    ],
)
def test_a_wrong_dependency_is_found(tmp_path: Path, path: str, line: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(line + "\n")
    (violation,) = check_dependencies.violations(tmp_path)
    assert violation.path == Path(path)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("codecs/dubbo/dubbo_codec.cc", '#include "src/codec/codec.h"'),
        ("codecs/dubbo/dubbo_codec.cc", '#include "codecs/dubbo/frame.h"'),
        ("codecs/dubbo/dubbo_codec.cc", "#include <vector>"),
        ("src/route/matcher.cc", '#include "re2/re2.h"'),
        ("src/config/loader.cc", '#include "generated/config_schema.h"'),
        ("envoy_ext/worker/hub.cc", '#include "src/engine.h"'),
        ("python/metaprotocol/translate/snapshot.py", "from metaprotocol.resources import routes"),
        ("python/metaprotocol/translate/snapshot.py", "from . import envoy_config"),
        ("python/metaprotocol/cli/main.py", "import metaprotocol.xds"),
    ],
)
def test_a_right_dependency_is_not(tmp_path: Path, path: str, line: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(line + "\n")
    assert check_dependencies.violations(tmp_path) == []
