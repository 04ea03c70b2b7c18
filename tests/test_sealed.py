import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igla.sealed import MANIFEST, BrokenSeal, check_sealed, write_durably, write_sealed

CONTENT = {"model.safetensors": bytes(range(256)) * 8, "state.json": b'{"step": 7}\n', "empty": b""}


def fill(folder: Path) -> None:
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("sealed") / "version"
    write_sealed(target, fill)
    return target


def test_what_was_sealed_is_whole(sealed: Path) -> None:
    check_sealed(sealed)
    assert {file.name for file in sealed.iterdir()} == {*CONTENT, MANIFEST}
    assert (sealed / "state.json").read_bytes() == CONTENT["state.json"]


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_every_flipped_bit_and_every_truncation_is_refused(
    sealed: Path, data: st.DataObject
) -> None:
    files = sorted(file for file in sealed.iterdir() if file.stat().st_size)
    file = data.draw(st.sampled_from(files))
    whole = file.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:position]
    else:
        bit = 1 << data.draw(st.integers(0, 7))
        damaged = whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :]
    file.write_bytes(damaged)
    try:
        with pytest.raises(BrokenSeal, match=file.name):
            check_sealed(sealed)
    finally:
        file.write_bytes(whole)
    check_sealed(sealed)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    target = tmp_path / "version"
    write_sealed(target, fill)
    (target / "state.json").unlink()
    with pytest.raises(BrokenSeal, match=r"state\.json is missing"):
        check_sealed(target)


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_sealed(tmp_path / "version", fail)
    assert os.listdir(tmp_path) == []


def test_a_new_writing_takes_the_place_of_the_former(tmp_path: Path) -> None:
    target = tmp_path / "version"
    write_sealed(target, fill)
    write_sealed(target, lambda folder: (folder / "other").write_text("new") and None)
    check_sealed(target)
    assert sorted(os.listdir(target)) == [MANIFEST, "other"]
    assert os.listdir(tmp_path) == ["version"]


def test_a_durable_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    write_durably(path, "long content\n" * 100)
    write_durably(path, "short\n")
    assert path.read_text() == "short\n"
    assert os.listdir(tmp_path) == ["recipe.yaml"]
