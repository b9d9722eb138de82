"""Chunks -> shards: after crashes, beside another process, on a full disk."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep import PrepError
from data_prep.shards import assemble
from data_prep.shards.chunks import PlannedShard, cut_chunks, encode_chunks
from data_prep.shards.encode import Encoding
from data_prep.shards.work_folder import WorkFolder, remove_work
from flower_ist.files import NotWrittenError
from flower_ist.tokens import writer as token_writer
from flower_ist.tokens.meta import ShardError
from flower_ist.tokens.shard import open_shard
from flower_ist.tokens.writer import ShardWriter
from tests.fakes.fake_encoder import FakeEncoder, image_set
from tests.fakes.full_disk import files_of_at_most


class Job:
    """Two shards of 12 images and, with two views, of 5; all chunks finished."""

    def __init__(self, out, token_dtype="int8"):
        self.out = out
        encoding, data = Encoding(FakeEncoder(), token_dtype=token_dtype), image_set(17)
        parts = (("client-0", np.arange(12), 1), ("client-1", np.arange(12, 17), 2))
        self.shards = [
            PlannedShard(data, rows, encoding.meta(data, name, rows=rows, views=views))
            for name, rows, views in parts
        ]
        self.chunks = cut_chunks(self.shards, 5)
        self.work = WorkFolder(out / ".prep", {})
        encode_chunks(encoding, self.shards, self.chunks, self.work, batch_size=4, workers=0)

    def assemble(self):
        return assemble.assemble(self.out, self.shards, self.chunks, self.work)

    def files(self):
        shards = [self.out / shard.name for shard in self.shards]
        return {
            f"{folder.name}/{file.name}": file.read_bytes()
            for folder in shards
            if folder.exists()
            for file in folder.iterdir()
        }

    def names(self):
        return sorted(path.name for path in self.out.iterdir())


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path / "out")


@pytest.mark.parametrize("token_dtype", ["float16", "float32", "int8"])
def test_shards_equal_those_that_one_writer_makes_of_the_tokens(tmp_path, token_dtype):
    job = Job(tmp_path / "out", token_dtype)
    assert job.assemble() == [job.out / "client-0", job.out / "client-1"]
    encoding = Encoding(FakeEncoder(), token_dtype=token_dtype)
    for shard in job.shards:
        with ShardWriter(tmp_path / shard.name, shard.meta) as writer:
            tokens = encoding.tokens(encoding.prepare(shard.data.take(shard.rows), shard.views))
            writer.append(tokens, *shard.labels_and_ids(slice(None)))
        for file in (tmp_path / shard.name).iterdir():
            assert file.read_bytes() == (job.out / shard.name / file.name).read_bytes()
        assert len(open_shard(job.out / shard.name, verify=True)) == shard.meta.num_examples


def test_a_crash_between_two_shards_is_gone_on_from(job, tmp_path, monkeypatch):
    real = ShardWriter.__init__

    def crash(self, folder, *arguments, **options):
        if folder.name == "client-1":
            raise KeyboardInterrupt
        real(self, folder, *arguments, **options)

    monkeypatch.setattr(ShardWriter, "__init__", crash)
    with pytest.raises(KeyboardInterrupt):
        job.assemble()
    monkeypatch.undo()
    assert job.names() == [".prep", "client-0"]
    first = (job.out / "client-0").stat()
    job.assemble()
    assert (job.out / "client-0").stat() == first
    whole = Job(tmp_path / "whole")
    whole.assemble()
    assert job.files() == whole.files()


def test_a_half_written_shard_lies_in_the_work_folder_only(job, monkeypatch):
    """What kill -9 leaves: nothing is cleaned up, as nothing runs any more."""
    monkeypatch.setattr(token_writer.shutil, "rmtree", lambda *_, **__: None)
    real = WorkFolder.read

    def killed(self, chunk):
        if chunk == 1:
            raise KeyboardInterrupt
        return real(self, chunk)

    monkeypatch.setattr(WorkFolder, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        job.assemble()
    monkeypatch.undo()
    assert job.names() == [".prep"]
    assert any(path.is_dir() for path in job.work.path.iterdir())
    job.assemble()
    remove_work(job.work.path)
    assert job.names() == ["client-0", "client-1"]


@pytest.mark.parametrize("moment", ["first shard", "all, and the chunks are gone"])
def test_two_processes_may_assemble_at_once(job, tmp_path, monkeypatch, moment):
    """The other one wins while this one is in the middle of its first shard."""
    real = WorkFolder.read

    def overtaken(self, chunk):
        if chunk == 2:
            monkeypatch.setattr(WorkFolder, "read", real)
            if moment == "first shard":
                assemble.assemble(job.out, job.shards[:1], job.chunks, job.work)
            else:
                job.assemble()
                remove_work(job.work.path)
        return real(self, chunk)

    monkeypatch.setattr(WorkFolder, "read", overtaken)
    assert job.assemble() == [job.out / "client-0", job.out / "client-1"]
    whole = Job(tmp_path / "whole")
    whole.assemble()
    assert job.files() == whole.files()
    remove_work(job.work.path)
    assert job.names() == ["client-0", "client-1"]


def test_another_shard_of_that_name_is_kept(job):
    other = replace(job.shards[1].meta, source="elsewhere")
    with ShardWriter(job.out / "client-1", other) as writer:
        rows = np.zeros((10, 3), np.float32)
        writer.append(rows, np.zeros(10, np.int64), np.arange(10))
    before = job.files()
    with pytest.raises(ShardError, match="client-1 is another shard: choose another folder or"):
        job.assemble()
    assert {name: job.files()[name] for name in before} == before


def test_a_disk_that_is_full_in_the_middle_leaves_no_shard(job):
    expected = pytest.raises(NotWrittenError, match=r"client-0 cannot be written \(File too large")
    with files_of_at_most(100), expected:
        job.assemble()
    assert job.names() == [".prep"]
    assert not any(path.is_dir() for path in job.work.path.iterdir())
    job.assemble()


def test_a_damaged_chunk_leaves_no_shard(job):
    (job.work.path / "chunk-000001.npz").write_bytes(b"PK")
    with pytest.raises(PrepError, match="is damaged"):
        job.assemble()
    assert job.names() == [".prep"]


def test_a_missing_chunk_is_not_passed_over(job):
    (job.work.path / "chunk-000001.npz").unlink()
    with pytest.raises(PrepError, match=r"chunk-000001\.npz is gone: start the same command again"):
        job.assemble()
    assert job.names() == [".prep"]
