"""The run log: what was appended comes back, and a crash costs one line at most."""

import json
import math

import pytest

from flower_ist.runlog import RUN_LOG, RunLog, RunLogError, read_run


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
    with pytest.raises(RunLogError, match="The run log cannot be written"):
        RunLog(tmp_path / "file" / "run")
    with pytest.raises(RunLogError, match="file is not a folder: choose another output folder"):
        RunLog(tmp_path / "file")
