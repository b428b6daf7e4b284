from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from simulator import kernel_cache, transaction
from simulator.ledger import post, window
from simulator.report import wording

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_kernels_are_made_of_is_found_through_imports() -> None:
    names = {str(path) for path in kernel_cache.sources()}
    assert {post.__file__, window.__file__, transaction.__file__} <= names
    assert wording.__file__ not in names


def test_a_changed_constant_in_another_module_changes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "post.py").write_text(
        "from simulator.kernel import kernel\nfrom simulator.words import (\n    Kind,\n)\n"
    )
    (tmp_path / "words.py").write_text("Kind = 1\n")
    (tmp_path / "other.py").write_text("x = 1\n")
    package = tmp_path.rename(tmp_path.parent / "simulator")
    monkeypatch.setattr(kernel_cache, "_PACKAGE", package)
    before = kernel_cache.folder()
    (package / "other.py").write_text("x = 2\n")
    assert kernel_cache.folder() == before
    (package / "words.py").write_text("Kind = 2\n")
    assert kernel_cache.folder() != before


def test_only_the_newest_folder_is_kept(tmp_path: Path) -> None:
    for name in ("kernels-old", "kernels-new", "kept"):
        (tmp_path / name).mkdir()
    kernel_cache.forget_others(tmp_path / "kernels-new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "kernels-new"]


def test_what_a_run_over_http_calls_is_loaded_before_its_clock_starts() -> None:
    loaded = (
        "print([len(kernel.signatures) for kernel in (dispatcher.fire, dispatcher.note_fired, answerers.count_one)])"
    )
    code = f"from simulator import dispatcher, warm; from simulator.measure import answerers; warm.warm(None); {loaded}"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert told.stdout == "[1, 1, 1]\n"


def test_what_a_node_that_comes_back_calls_for_is_loaded_before_the_clock_starts() -> None:
    loaded = "assert dispatcher.unanswered.signatures and split.homes.signatures"
    code = f"from simulator import dispatcher, warm; from simulator.shard import split; warm.warm(None); {loaded}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
