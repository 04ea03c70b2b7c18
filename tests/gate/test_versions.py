"""Sealed versions, and the pointer to the one that serves."""

import threading
import time
from pathlib import Path

import pytest

from igla.errors import UserError
from igla.gate.versions import About, Versions


def add(versions: Versions, parent: str | None, lessons: int = 0, content: str = "weights") -> str:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_text(content)

    about = About(parent, lessons, time.time(), True, "passed", {"pr_auc": lessons / 10})
    return versions.add(write, about)


@pytest.fixture
def three(tmp_path: Path) -> Versions:
    versions = Versions(tmp_path / "versions")
    parent = None
    for lessons in (0, 3, 6):
        parent = add(versions, parent, lessons)
        versions.promote(parent, "learner")
    return versions


def test_versions_are_numbered_and_numbers_do_not_come_back(three: Versions) -> None:
    assert three.names() == ["v0001", "v0002", "v0003"]
    assert three.serving().name == "v0003"
    assert three.about("v0002").parent == "v0001"
    three.promote("v0001", "a hand")
    assert add(three, "v0001") == "v0004"


def test_rollback_goes_to_the_parent_at_once(three: Versions) -> None:
    start = time.perf_counter()
    assert three.rollback("a hand") == "v0002"
    assert time.perf_counter() - start < 5  # nothing is loaded, nothing computed
    serving = three.serving()
    assert (serving.name, serving.by) == ("v0002", "a hand")
    # What v0003 has learned is no reason to begin a round again.
    assert three.tried() == 6
    assert three.rollback("a hand") == "v0001"
    with pytest.raises(UserError, match="v0001 is the first version"):
        three.rollback("a hand")
    assert three.rollback("a hand", to="v0003") == "v0003"


def test_a_torn_version_never_serves(three: Versions) -> None:
    weights = three.path("v0002") / "model.safetensors"
    weights.write_text("weighs")
    for refused in (lambda: three.rollback("a hand"), lambda: three.promote("v0002", "a hand")):
        with pytest.raises(UserError, match="v0002 is damaged"):
            refused()
    assert three.serving().name == "v0003"
    with pytest.raises(UserError, match="there are v0001, v0002, v0003"):
        three.promote("v0009", "a hand")
    with pytest.raises(UserError, match="There is no version"):
        three.promote("../versions/v0001", "a hand")


def test_a_promotion_does_not_undo_a_rollback_that_came_before_it(three: Versions) -> None:
    copy = add(three, "v0003", 9)
    three.rollback("a hand")
    assert not three.promote(copy, "learner", instead_of="v0003")
    assert three.serving().name == "v0002"
    assert three.promote(copy, "learner", instead_of="v0002")


def test_readers_always_find_a_whole_pointer(three: Versions) -> None:
    stop = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(three.serving().name)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        three.rollback("a hand", to="v0001")
        three.promote("v0003", "learner")
    stop.set()
    reader.join()
    assert seen <= {"v0001", "v0003"}


def test_the_best_of_what_has_served_is_known(three: Versions) -> None:
    assert three.best(lambda about: about.figures["pr_auc"]) == "v0003"
    three.rollback("a hand")
    assert three.best(lambda about: about.figures["pr_auc"]) == "v0002"
    assert three.best(lambda about: -about.figures["pr_auc"]) == "v0001"


def test_what_is_not_needed_goes_and_what_serves_stays(three: Versions) -> None:
    three.promote("v0001", "a hand")
    (three.folder / "notes").mkdir()
    assert three.prune(keep=1, also=["v0002"]) == []
    assert three.prune(keep=1) == ["v0002"]
    assert three.names() == ["v0001", "v0003"] and (three.folder / "notes").is_dir()


def test_a_killed_writer_leaves_nothing(three: Versions) -> None:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        three.add(write, About("v0003", 9, 0.0, True, ""))
    (three.folder / ".v0004.0123456789abcdef").mkdir()  # of one that was killed by the kernel
    three.clean()
    assert three.names() == ["v0001", "v0002", "v0003"]
    assert not list(three.folder.glob(".v*"))


def test_without_a_pointer_nothing_serves(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    with pytest.raises(UserError, match="No version"):
        versions.serving()
    name = add(versions, None)
    (tmp_path / "serving.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        versions.serving()
    (tmp_path / "serving.json").unlink()
    assert versions.promote(name, "a hand") and versions.serving().name == name
