"""Sealed versions, and the pointer to the one that serves."""

import threading
import time
from pathlib import Path

import pytest

from igla.errors import UserError
from igla.gate.versions import About, Damaged, Torn, Versions


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


@pytest.mark.parametrize("file", ["model.safetensors", "version.json", "manifest.json"])
def test_from_a_torn_version_one_goes_back_to_a_whole_one(three: Versions, file: str) -> None:
    torn = three.path("v0003") / file
    content = bytearray(torn.read_bytes())
    content[len(content) // 2] ^= 1
    torn.write_bytes(content)
    with pytest.raises(Torn, match="v0003 is damaged"):
        three.check("v0003")
    assert three.whole(but="v0003") == "v0002"
    if file == "version.json":
        assert [*three.known()] == ["v0001", "v0002"]
        with pytest.raises(UserError, match=r"damaged.*Name the version .*--to"):
            three.rollback("a hand")
    assert three.rollback("a hand", to="v0002") == three.serving().name == "v0002"
    (three.path("v0002") / "model.safetensors").unlink()
    assert three.whole(but="v0003") == "v0001" and three.whole(but="v0001") is None


def test_every_changed_letter_of_what_is_known_of_a_version_is_found(three: Versions) -> None:
    file = three.path("v0003") / "version.json"
    whole = file.read_text()
    for changed in (whole.replace("pr_auc", "pr-auc"), whole.replace("0.6", "0.9"), "[]", ""):
        assert changed != whole
        file.write_text(changed)
        with pytest.raises(Torn, match="version.json is damaged"):
            three.about("v0003")


POINTERS = [
    b"", b"{", b"[]", b"null", b'"v0001"', b"\xff", b"{}",
    b'{"name": 3, "since": 0, "by": "a hand"}',
    b'{"name": "../v0001", "since": 0, "by": "a hand"}',
    b'{"name": "v0001", "since": "today", "by": "a hand"}',
]  # fmt: skip


@pytest.mark.parametrize("content", POINTERS)
def test_a_damaged_pointer_is_told_of_and_written_anew_by_who_names_a_version(
    three: Versions, content: bytes
) -> None:
    pointer = three.folder / "serving.json"
    pointer.write_bytes(content)
    for refused in (three.serving, lambda: three.rollback("a hand"), lambda: three.prune(1)):
        with pytest.raises(Damaged, match=r"igla gate promote \S+ VERSION .* v0001, v0002, v0003"):
            refused()
    assert three.promote("v0002", "a hand") and three.serving().name == "v0002"
    pointer.write_bytes(content)
    assert three.rollback("a hand", to="v0001") == three.serving().name == "v0001"


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
