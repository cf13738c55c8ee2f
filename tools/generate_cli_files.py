"""Make what the command `metaprotocol` says about itself elsewhere: a manual page, and completion
for bash, zsh and fish, in share/ as they lie below /usr or ~/.local.

    python tools/generate_cli_files.py [--check]

The completion scripts ask the program; only the manual page changes with its options. click-man was
looked at: it knows neither Typer's own copy of click nor arguments, defaults and exit codes.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from metaprotocol.cli.main import app
from typer._completion_shared import get_completion_script

ROOT = Path(__file__).resolve().parent.parent
NAME = "metaprotocol"

COMPLETIONS = {
    "bash": f"share/bash-completion/completions/{NAME}",
    "zsh": f"share/zsh/site-functions/_{NAME}",
    "fish": f"share/fish/vendor_completions.d/{NAME}.fish",
}

_MARKUP = re.compile(r"(?<!\\)\[/?(bold|dim|italic)\]")


def plain(text: str) -> str:
    """Help without the markup that colours it in a terminal."""
    return _MARKUP.sub("", text).replace("\\[", "[")


def escaped(text: str) -> str:
    """Text as roff takes it literally."""
    text = plain(text).replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in text.split("\n"))


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a help text; what is indented is shown as it is."""
    for paragraph in plain(text).split("\n\n"):
        if paragraph.startswith(" "):
            yield from (".PP", ".nf", escaped(paragraph.strip("\n")), ".fi")
        elif paragraph.strip():
            yield from (".PP", escaped(" ".join(paragraph.split())))


def parameters(context: Any, command: Any) -> Iterator[str]:
    """A command's arguments and options, each with what it is for."""
    for parameter in command.get_params(context):
        if getattr(parameter, "hidden", False):
            continue
        record = parameter.get_help_record(context)
        if record is None:
            continue
        title, text = record
        yield from (".TP", f"\\fB{escaped(' '.join(title.split()))}\\fR")
        yield escaped(" ".join((text or "").split())) or "\\&"


def commands(context: Any, group: Any, words: str) -> Iterator[str]:
    """Every command below a group, each a section of its own."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command.hidden:
            continue
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        title = f"{words} {name}"
        yield f'.SH "{title.upper()}"'
        usage = " ".join(command.collect_usage_pieces(inner))
        yield from (f"\\fB{escaped(title)}\\fR {escaped(usage)}",)
        yield from paragraphs(command.help or "")
        yield from parameters(inner, command)
        yield from paragraphs((command.epilog or "").replace(app.info.epilog or "", ""))
        if hasattr(command, "list_commands"):
            yield from commands(inner, command, title)


def manual_page() -> str:
    """The manual page, in roff."""
    program = typer.main.get_command(app)
    context = program.make_context(NAME, [], resilient_parsing=True)
    lines = [
        f'.TH {NAME.upper()} 1 "" "{NAME}" "User Commands"',
        ".SH NAME",
        f"{NAME} \\- any layer-7 protocol through a stock Envoy",
        ".SH SYNOPSIS",
        f"\\fB{NAME}\\fR COMMAND [OPTIONS] [ARGS]",
        ".SH DESCRIPTION",
        *paragraphs(program.help or ""),
        *parameters(context, program),
        *commands(context, program, NAME),
        ".SH EXIT STATUS",
        *paragraphs(program.epilog or ""),
    ]
    return "\n".join(lines) + "\n"


def files() -> dict[Path, str]:
    """Each file and what is to be in it."""
    made = {ROOT / f"share/man/man1/{NAME}.1": manual_page()}
    for shell, path in COMPLETIONS.items():
        script = get_completion_script(
            prog_name=NAME, complete_var=f"_{NAME.upper()}_COMPLETE", shell=shell
        )
        # A file in zsh's function path is the completion itself, the first time, too.
        script = script.replace(f"compdef _{NAME}_completion {NAME}", f'_{NAME}_completion "$@"')
        made[ROOT / path] = script + "\n"
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say which are not current")
    check = parser.parse_args().check
    old = [path for path, text in files().items() if not path.is_file() or path.read_text() != text]
    for path in old:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files()[path])
        sys.stdout.write(f"{path.relative_to(ROOT)}{' is not current' if check else ''}\n")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
