"""Another commit's control plane, to be measured beside this one in the same run.

Its Python, and the schema's messages, are those of a git worktree in build/beside/COMMIT, which is
made on first use; the module and the engine are this tree's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BUILT = "python/metaprotocol/_native/*.so"


def tree_of(commit: str) -> Path:
    """The folder with that commit's tree. subprocess.CalledProcessError if there is no such
    commit."""
    name = _git("rev-parse", "--short=12", "--verify", f"{commit}^{{commit}}").strip()
    tree = ROOT / "build" / "beside" / name
    if not (tree / "python").is_dir():
        tree.parent.mkdir(parents=True, exist_ok=True)
        _git("worktree", "prune")
        _git("worktree", "add", "--detach", "--force", str(tree), name)
    for built in ROOT.glob(_BUILT):
        copied = tree / built.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(built, copied)
    schema = sorted(str(file) for file in (tree / "api").rglob("*.proto"))
    compiler = [sys.executable, "-m", "grpc_tools.protoc", f"-I{tree / 'api'}"]
    subprocess.run([*compiler, f"--python_out={tree / 'python'}", *schema], check=True)
    return tree


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
