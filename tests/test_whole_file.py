"""Files are written whole or not at all, and what has a name already stays what it is."""

import os
import shutil
import threading
from pathlib import Path

import pytest

import tlbcore
import tlbcore.export
from given_data import DATA
from tlbcore.cli.main import main
from tlbcore.errors import InputError
from tlbcore.whole_file import check_ending, check_place, replacing, write_text

MICRO = DATA / "recordings" / "micro.perf.txt.zst"


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "file").write_text("old", encoding="utf-8")
    link = tmp_path / "link"
    link.symlink_to(folder / "file")
    write_text(link, "new")
    assert link.is_symlink()
    assert (folder / "file").read_text(encoding="utf-8") == "new"
    tlbcore.load(MICRO).save(link)
    assert link.is_symlink()
    assert tlbcore.load(folder / "file").nr_events == tlbcore.load(MICRO).nr_events
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["elsewhere", "file", "link"]


def test_a_pipe_gets_the_text_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    check_place(pipe)
    write_text(pipe, "text")
    reader.join()
    assert read == ["text"]
    assert pipe.is_fifo()
    with pytest.raises(InputError, match="found a device or a pipe, expected a file"):
        tlbcore.load(MICRO).save(pipe)
    assert pipe.is_fifo()


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("half", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_must_not_say_something_else(tmp_path: Path) -> None:
    check_ending(tmp_path / "page.html", (".html", ".htm"))
    check_ending(tmp_path / "page", (".html",))
    check_ending("/dev/null", (".html",))
    with pytest.raises(InputError, match=r"found a name that ends in \.pdf, expected \.html or \.htm"):
        check_ending(tmp_path / "page.pdf", (".html", ".htm"))


@pytest.mark.parametrize(
    "words",
    [
        ["report", "R", "-o", "R"],
        ["report", "R", "-o", "x.pdf"],
        ["export", "R", "--format", "perfetto", "-o", "R"],
        ["export", "R", "--format", "perfetto", "-o", "x.csv"],
        ["export", "R", "--format", "parquet", "--table", "flushes", "-o", "x.csv"],
        ["import", "R", "-o", "R"],
        ["import", "R", "-o", "x.html"],
        ["record", "-o", "x.html", "--", "true"],
    ],
    ids=" ".join,
)
def test_a_recording_is_not_overwritten_by_what_is_made_of_it(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recording = tmp_path / "R"
    shutil.copy(MICRO, recording)
    before = recording.read_bytes()
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert recording.read_bytes() == before
    assert list(tmp_path.iterdir()) == [recording]


def test_a_recording_is_called_as_its_file_is_called_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tlbcore.load(MICRO).save("true.tlbr")
    shutil.copy("true.tlbr", "before.tlbr")
    assert main(["report", "before.tlbr", "--kernel", "linux-6.18", "--machine", "default"]) == 0
    assert capsys.readouterr().out.startswith("before.tlbr: ")
    assert main(["export", "before.tlbr", "--format", "csv", "--table", "flushes"]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"true.tlbr", "before.tlbr", "before.html", "before-flushes.csv"}


def test_what_is_interrupted_leaves_no_empty_folder(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tlbcore.export.export(MICRO, "csv", tmp_path / "tables", progress=interrupt)
    assert list(tmp_path.iterdir()) == []
