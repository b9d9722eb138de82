"""The run log: what was appended comes back, and a crash costs one line at most."""

import hashlib
import json
import math

import pytest

from flower_ist.files import NotWrittenError
from flower_ist.runs.log import DROPPED_LOG, RUN_LOG, RunLog, RunLogError, read_run, sole_writer
from tests.fakes.full_disk import files_of_at_most


def write(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / RUN_LOG).write_text(text)
    return folder


def test_lines_come_back_in_order_from_folder_and_file(tmp_path):
    log = RunLog(tmp_path / "new" / "run")
    lines = [{"round": 0, "accuracy": 0.5}, {"round": 1, "failures": {"a": "it ended"}}]
    for line in lines:
        log.append(line)
    assert read_run(tmp_path / "new" / "run") == lines
    assert read_run(log.path) == lines


def test_each_line_is_on_the_disk_before_the_next_begins(tmp_path):
    log = RunLog(tmp_path)
    for server_round in range(3):
        log.append({"round": server_round})
        assert len(read_run(tmp_path)) == server_round + 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for_becomes_null(tmp_path, value):
    RunLog(tmp_path).append(
        {"round": 0, "loss": value, "seconds": {"train": value}, "shares": [value, 1.5]}
    )
    (text,) = (tmp_path / RUN_LOG).read_text().splitlines()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "round": 0,
        "loss": None,
        "seconds": {"train": None},
        "shares": [None, 1.5],
    }


def test_any_text_stays_on_one_line(tmp_path):
    line = {"round": 0, "failures": {"a\nb": "\u2028\x85\ud800 end"}}
    RunLog(tmp_path).append(line)
    assert read_run(tmp_path) == [line]


@pytest.mark.parametrize("torn", ["{", '{"round": 2, "acc', "\0\0\0", "null", "7", '{"loss": 1}'])
def test_a_torn_last_line_is_skipped(tmp_path, torn):
    folder = write(tmp_path, '{"round": 0}\n{"round": 1}\n' + torn)
    assert [line["round"] for line in read_run(folder)] == [0, 1]


@pytest.mark.parametrize("damaged", ["{", "", "null", "[]", '{"accuracy": 1}'])
def test_a_damaged_line_before_the_last_is_refused(tmp_path, damaged):
    folder = write(tmp_path, f'{{"round": 0}}\n{damaged}\n{{"round": 2}}\n')
    with pytest.raises(RunLogError, match=r"Line 2 of .*run\.jsonl is not a round of a run log"):
        read_run(folder)


@pytest.mark.parametrize("text", ["", '{"round": 0'])
def test_a_log_without_a_whole_round_is_refused(tmp_path, text):
    with pytest.raises(RunLogError, match="holds no round yet"):
        read_run(write(tmp_path, text))


def test_a_missing_log_and_one_that_is_no_text_are_sentences(tmp_path):
    with pytest.raises(RunLogError, match="There is no readable run log at"):
        read_run(tmp_path)
    (tmp_path / RUN_LOG).write_bytes(b"\xff\xfe")
    with pytest.raises(RunLogError, match="There is no readable run log at"):
        read_run(tmp_path)


def test_an_existing_run_is_kept(tmp_path):
    RunLog(tmp_path).append({"round": 0})
    with pytest.raises(RunLogError, match="holds a run already: choose another output folder"):
        RunLog(tmp_path)
    assert read_run(tmp_path) == [{"round": 0}]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "run", tmp_path / "file"):
        with pytest.raises(NotWrittenError, match=f"^{folder} cannot be written .*: check the fol"):
            RunLog(folder)


def lines_of(folder, count):
    log = RunLog(folder)
    for server_round in range(count):
        log.append({"round": server_round})
    return log


def test_a_reopened_log_goes_on_and_what_came_later_is_kept_beside_it(tmp_path):
    log = lines_of(tmp_path, 2)
    size = log.size
    log.append({"round": 2})
    with log.path.open("a") as file:
        file.write('{"round": 3, "acc')
    again = RunLog.reopen(tmp_path, size)
    assert again.size == size
    again.append({"round": 2, "second": True})
    assert read_run(tmp_path) == [{"round": 0}, {"round": 1}, {"round": 2, "second": True}]
    assert (tmp_path / DROPPED_LOG).read_text() == '{"round": 2}\n{"round": 3, "acc\n'
    RunLog.reopen(tmp_path, size)
    assert (tmp_path / DROPPED_LOG).read_text().count("\n") == 3


def test_nothing_is_dropped_where_nothing_came_later(tmp_path):
    RunLog.reopen(tmp_path, lines_of(tmp_path, 2).size)
    assert len(read_run(tmp_path)) == 2
    assert not (tmp_path / DROPPED_LOG).exists()


@pytest.mark.parametrize("size", [5, 14, 1000])
def test_a_log_that_was_changed_is_not_reopened(tmp_path, size):
    """Two lines of 13 bytes each: neither 5 nor 14 bytes are whole lines."""
    before = lines_of(tmp_path, 2).path.read_bytes()
    assert len(before) == 26
    with pytest.raises(RunLogError, match=f"not the log of its checkpoint, .* after {size} bytes"):
        RunLog.reopen(tmp_path, size)
    assert (tmp_path / RUN_LOG).read_bytes() == before


def test_a_log_that_is_gone_is_not_reopened(tmp_path):
    with pytest.raises(RunLogError, match="There is no readable run log at"):
        RunLog.reopen(tmp_path, 0)


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path):
    """The operating system takes 30 bytes: two lines and 4 bytes of the third."""
    log = lines_of(tmp_path, 2)
    expected = pytest.raises(NotWrittenError, match=r"run.jsonl cannot be written \(File too large")
    with files_of_at_most(30), expected:
        log.append({"round": 2})
    assert log.path.read_bytes() == b'{"round": 0}\n{"round": 1}\n'


def test_a_folder_has_one_writer_at_a_time(tmp_path):
    expected = pytest.raises(RunLogError, match=f"Another process writes to {tmp_path}: end it")
    with sole_writer(tmp_path), expected, sole_writer(tmp_path):
        pass
    with sole_writer(tmp_path):
        pass


def test_every_changed_byte_of_a_round_that_is_done_is_noticed(tmp_path):
    """Length and line ends are as they were: only the hash tells."""
    log = lines_of(tmp_path, 2)
    size, sha256 = log.size, log.sha256
    good = log.path.read_bytes()
    assert hashlib.sha256(good).hexdigest() == sha256
    for place in range(size - 1):
        log.path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(RunLogError, match=r"run.jsonl is not the log of its checkpoint"):
            RunLog.reopen(tmp_path, size, sha256)
        assert not (tmp_path / DROPPED_LOG).exists()
    log.path.write_bytes(good)
    again = RunLog.reopen(tmp_path, size, sha256)
    again.append({"round": 2})
    assert again.sha256 == hashlib.sha256(again.path.read_bytes()).hexdigest()


def test_what_is_appended_does_not_follow_a_planted_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    log = lines_of(tmp_path / "run", 2)
    (tmp_path / "run" / DROPPED_LOG).symlink_to(victim)
    with pytest.raises(NotWrittenError, match=r"run.dropped.jsonl cannot be written"):
        RunLog.reopen(tmp_path / "run", 0)
    assert victim.read_text() == "mine"
    log.path.unlink()
    log.path.symlink_to(victim)
    with pytest.raises(NotWrittenError, match=r"run.jsonl cannot be written"):
        log.append({"round": 2})
    assert victim.read_text() == "mine"
