"""The commands ``fuzz``, ``conformance`` and ``decode``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from metaprotocol.engine import Direction
from metaprotocol.fuzz import conformance, worker
from metaprotocol.fuzz.campaign import Campaign, Progress, fuzz
from metaprotocol.fuzz.messages import seeds
from metaprotocol.fuzz.targets import Target, UnknownTarget, find

ROOT = Path(__file__).resolve().parents[3]
ACME = str(ROOT / "examples" / "private-protocol" / "protocol.yaml")
NAMES = ["bolt", "bolt2", "brpc", "dubbo", "kafka", "rocketmq", "thrift", "trpc", ACME]


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "metaprotocol", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_codec_keeps_the_rules(name: str) -> None:
    progress = Progress()
    conformance.check(find(name), [], "", progress)
    assert progress.findings == []
    assert progress.messages > 100


def test_the_declaration_that_the_guide_begins_with_keeps_the_rules(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "writing-a-codec.md").read_text()
    (tmp_path / "page.yaml").write_text(guide.partition("```yaml\n")[2].partition("```")[0])
    progress = Progress()
    conformance.check(find(str(tmp_path / "page.yaml")), [], "", progress)
    assert progress.findings == []


@pytest.mark.parametrize("engine", ["builtin", "hypothesis", "atheris"])
def test_fuzzing_counts_and_grows_its_corpus(engine: str, tmp_path: Path) -> None:
    if engine == "atheris":
        pytest.importorskip("atheris", reason="has no wheel for this machine or Python")
    done = command(
        "fuzz", "bolt", "--time", "2s", "--corpus", "corpus", "--engine", engine, "--json",
        "--junit", "fuzz.xml", "--sarif", "fuzz.sarif", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["executions"] > 50
    assert said["findings"] == []
    kept = [path for path in (tmp_path / "corpus").rglob("*") if path.is_file()]
    assert len(kept) > 5
    assert {path.parent.name for path in kept} == {"request", "response"}
    assert ElementTree.parse(tmp_path / "fuzz.xml").getroot().get("failures") == "0"
    assert json.loads((tmp_path / "fuzz.sarif").read_text())["runs"][0]["results"] == []
    assert not (tmp_path / "crashes").exists()


def test_the_same_seed_makes_the_same_inputs() -> None:
    class Recorder(worker.Worker):
        def execute(self, side: str, data: bytes) -> int:
            inputs.append((side, data))
            return super().execute(side, data)

    def run(seed: int) -> list[tuple[str, bytes]]:
        inputs.clear()
        job = worker.Job(find("bolt"), seed, 0.0, slot)
        recorder = Recorder(job)
        for side, data in recorder._begin():
            recorder.execute(side, data)
        left = iter(range(300))
        for _ in worker._builtin_rounds(recorder, lambda: next(left, None) is not None):
            pass
        return list(inputs)

    inputs: list[tuple[str, bytes]] = []
    import tempfile

    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        slot = str(Path(folder) / "slot")
        worker.Slot(Path(slot), create=True)
        before, sys.stdout = sys.stdout, nowhere
        try:
            one, same, other = run(1), run(1), run(2)
        finally:
            sys.stdout = before
    assert one == same
    assert one != other


# A declaration whose error replies are requests: rules find it at once.
WRONG = """
framing: {length: {fields: [length], after: length}}
fields:
- {name: length, bytes: 4}
- {name: kind, bytes: 1}
- {name: id, bytes: 4}
kinds:
- {kind: response, when: [{field: kind, values: [2]}]}
correlationId: id
errorReply: {set: [{field: kind, number: 3}], body: "{text}"}
"""


def test_what_breaks_a_rule_is_saved_made_small_and_shown_again(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(WRONG)
    done = command(
        "fuzz", "wrong.yaml", "--time", "2s", "--json", "--junit", "fuzz.xml", cwd=tmp_path
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["rule"] == "a reply is a message of another kind"
    assert len(bytes.fromhex(finding["bytes"])) <= 24
    assert (tmp_path / finding["file"]).read_bytes() == bytes.fromhex(finding["bytes"])
    assert ElementTree.parse(tmp_path / "fuzz.xml").getroot().get("failures") == "1"
    again = finding["reproduce"].split()
    assert again[0] == "metaprotocol"
    shown = command(*again[1:], cwd=tmp_path)
    assert shown.returncode == 1
    assert "a reply is a message of another kind" in shown.stderr


def test_an_input_that_kills_the_worker_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is a program that dies as a codec written in C can."""
    program = tmp_path / "python"
    program.write_text(
        """#!/bin/sh
        case "$3" in
        *'"slot"'*)
            slot=$(printf %s "$3" | sed 's/.*"slot": "\\([^"]*\\)".*/\\1/')
            printf '\\005\\000\\000\\000\\001dxxyx' | dd of="$slot" conv=notrunc 2>/dev/null
            kill -ABRT $$;;
        *)
            file=$(printf %s "$3" | sed 's/.*"\\([^"]*\\)"]/\\1/')
            if grep -q d "$file" && grep -q y "$file"; then kill -ABRT $$; fi;;
        esac
        """
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    done = fuzz(Campaign(Target("dubbo"), seconds=0.2, crashes=tmp_path / "crashes"))
    (finding,) = done.findings
    assert finding.rule == "the codec ends the process: SIGABRT"
    assert finding.side == "response"
    assert finding.data == b"dy"
    assert finding.file is not None
    assert finding.file.read_bytes() == b"dy"


def test_made_up_messages_are_messages() -> None:
    for name in ("bolt", "rocketmq", ACME):
        target = find(name)
        for direction in (Direction.REQUEST, Direction.RESPONSE):
            found = [target.codec().check(direction, data)[1] for data in seeds(target, direction)]
            assert sum(found) > len(found) / 2, name


def test_declarations_are_read_however_the_engine_lets_them_spell_names() -> None:
    target = find(ACME)
    camel = re.sub(r"_([a-z])(?=[a-z_]*\":)", lambda name: name[1].upper(), target.declaration)
    assert '"keyLengthPrefix":' in camel
    same = Target(target.name, camel)
    assert same.codec().traits["metadata_keys"] == target.codec().traits["metadata_keys"]
    for direction in (Direction.REQUEST, Direction.RESPONSE):
        assert seeds(same, direction) == seeds(target, direction)


def test_decode_explains_every_field_at_its_place(tmp_path: Path) -> None:
    head = bytes.fromhex("ace1 00 00 0000000000000007 00000012")
    rest = b"\0\4Shop" + b"\0\3get" + b"\0\5" + b"\1k\0\1v"
    (tmp_path / "one.bin").write_bytes(head + rest + b"\xac")
    done = command("decode", "one.bin", "--protocol", ACME, "--json", cwd=tmp_path)
    said = json.loads(done.stdout)
    (message,) = said["messages"]
    assert (message["kind"], message["id"], message["bytes"]) == ("request", 7, 34)
    fields = {
        item["name"]: (item["at"], item["bytes"], item["value"]) for item in message["fields"]
    }
    assert fields["id"] == (4, 8, "7")
    assert fields["service"] == (16, 6, "Shop")
    assert fields["method"] == (22, 5, "get")
    assert fields["headers"] == (27, 7, "k=v")
    assert said["problem"] == "at byte 34: cut off; 16 bytes are needed, 1 are there"
    assert done.returncode == 1
    shown = command("decode", "one.bin", "--protocol", ACME, cwd=tmp_path)
    assert "53 68 6f 70" in shown.stdout


def test_a_target_that_there_is_not_is_told_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownTarget, match="codecs are bolt, bolt2, brpc, dubbo, kafka, rocketmq, thrift, trpc"
    ):
        find("bold")
    (tmp_path / "no.yaml").write_text("a: 1")
    with pytest.raises(UnknownTarget, match="has no declaration"):
        find(str(tmp_path / "no.yaml"))
    (tmp_path / "bad.yaml").write_text(WRONG.replace("correlationId: id", "correlationId: di"))
    done = command("fuzz", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert 'correlation_id: "di": is no field of requests' in done.stderr
