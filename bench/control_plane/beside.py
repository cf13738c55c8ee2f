"""Another commit's control plane, to be measured beside this one in the same run.

Its Python is taken from a git worktree in build/beside/COMMIT, which is made on first use; what is
built (module, engine, messages of the schema) is this tree's, so that only the Python differs.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BUILT = ("python/metaprotocol/_native/*.so", "python/metaprotocol/config/v1/*_pb2.py*")


def tree_of(commit: str) -> Path:
    """The folder with that commit's tree. subprocess.CalledProcessError if there is no such
    commit."""
    name = _git("rev-parse", "--short=12", "--verify", f"{commit}^{{commit}}").strip()
    tree = ROOT / "build" / "beside" / name
    if not (tree / "python").is_dir():
        tree.parent.mkdir(parents=True, exist_ok=True)
        _git("worktree", "prune")
        _git("worktree", "add", "--detach", "--force", str(tree), name)
    for pattern in _BUILT:
        for built in ROOT.glob(pattern):
            copied = tree / built.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(built, copied)
    return tree


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
