"""What is built of the project: the bundle of a run, the wheel and the source archive."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.cli.app_cmd.publish import MAX_FILE_BYTES, MAX_FILE_COUNT, MAX_TOTAL_BYTES
from flwr.cli.utils import collect_files, filter_paths_for_publish

from flower_ist.runs.launch import copy_app
from tests.fakes import ROOT

PACKAGES = ("flower_ist", "client_app", "server_app", "data_prep")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text(encoding="utf-8")
BUNDLE = {
    *("pyproject.toml", "LICENSE", ".info/CONTENT"),
    *(f"bundle/{name}.py" for name in ("__init__", "client", "library", "server")),
}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``flwr build`` makes of a checkout."""
    folder = tmp_path_factory.mktemp("fab") / "flower-ist"
    folder.mkdir()
    copy_app(ROOT, folder)
    home = str(folder.parent / "home")
    run(Path(sys.executable).with_name("flwr"), "build", cwd=folder, FLWR_HOME=home)
    (fab,) = folder.glob("*.fab")
    return fab


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of wheel and source archive, as ``python -m build`` makes them."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (file,) = built.glob("*.whl")
    return file


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_a_device_fetches_at_most_25_kb_for_a_run(bundle: Path) -> None:
    """Most of it is the license, which Flower's format 1 asks for, and the settings.

    The gateway compresses it.
    """
    assert bundle.stat().st_size <= 25_000
    assert len(gzip.compress(bundle.read_bytes())) <= 9_000
    assert set(zipfile.ZipFile(bundle).namelist()) == BUNDLE


def test_the_bundle_is_of_the_format_that_flowers_hub_takes(bundle: Path) -> None:
    content = tomllib.loads(zipfile.ZipFile(bundle).read("pyproject.toml").decode())
    app, project = content["tool"]["flwr"]["app"], content["project"]
    assert app["fab-format-version"] == 1
    assert project["license"] == {"file": "LICENSE"}
    assert f"flwr=={app['flwr-version-target']}\n" in (ROOT / "constraints.txt").read_text()
    assert re.fullmatch(r"[a-z0-9-]{1,32}", project["name"])
    assert len(project["description"]) <= 200


# Flower asks the library that reads its patterns for them by a name that will go.
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_the_hub_takes_the_files_of_a_checkout(bundle: Path) -> None:
    files = filter_paths_for_publish(collect_files(bundle.parent))
    assert set(files) >= BUNDLE - {".info/CONTENT"} | {"README.md", "server_app/app.py"}
    sizes = [file.stat().st_size for file in files.values() if isinstance(file, Path)]
    assert len(sizes) <= MAX_FILE_COUNT
    assert max(sizes) <= MAX_FILE_BYTES
    assert sum(sizes) <= MAX_TOTAL_BYTES
    assert not [name for name in files if name.endswith(".png")]


def test_the_wheel_holds_all_files_of_its_packages_and_the_app(wheel: Path) -> None:
    packed = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    here = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == here | {f"flower_ist/app/{name}" for name in BUNDLE - {".info/CONTENT"}}
    for needed in (
        "flower_ist/py.typed",
        "flower_ist/tokens/demo/test-1.json",
        "flower_ist/deploy/templates/node/start.sh",
        "flower_ist/compare/report.html.jinja",
        "flower_ist/page.html.jinja",
        "data_prep/encoders/embedded/encoder.safetensors",
    ):
        assert needed in packed
    assert wheel.stat().st_size <= 3_200_000


def test_the_source_archive_builds_and_stays_small(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "CITATION.cff", "Makefile"} <= names
    assert archive.stat().st_size <= 4_500_000


def test_the_address_of_the_project_is_one() -> None:
    """It is not decided: one stands for it, so that one command replaces it everywhere."""
    hooks = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    urls = PROJECT["project"]["urls"]
    links = [*urls.values(), *(s["replacement"][2:] for s in hooks["substitutions"])]
    assert all(link.startswith(urls["Homepage"]) for link in links)


def test_on_pypi_every_link_and_picture_is_absolute(wheel: Path) -> None:
    told = metadata(wheel)
    text = told.get_payload()
    assert isinstance(text, str)
    assert "![" in README
    assert len(re.findall(r"\]\(", text)) == len(re.findall(r"\]\(", README))
    home = PROJECT["project"]["urls"]["Homepage"]
    for picture, target in re.findall(r"(!?)\[[^]]*\]\(([^)]*)\)", text):
        assert target.startswith(("https://", "#")), target
        if target.startswith(home):
            where, _, name = target.removeprefix(home).partition("/main/")
            assert where == ("/raw" if picture else "/blob")
            assert (ROOT / name.partition("#")[0]).exists(), target


def test_the_version_is_the_same_everywhere(wheel: Path) -> None:
    version = PROJECT["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert metadata(wheel)["Version"] == citation["version"] == version
    assert {"cff-version", "title", "authors", "license", "message"} <= citation.keys()
    assert metadata(wheel)["License-File"] == "LICENSE"


@pytest.mark.slow
def test_commands_work_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """Unpacked beside nothing else of the project, in another folder; no command needs a checkout.

    ``prep`` has the embedded encoder, ``compare`` the app and ``deploy`` its templates.
    """
    from PIL import Image

    library = tmp_path / "library"
    zipfile.ZipFile(wheel).extractall(library)
    for label in ("cat", "dog"):
        for number in range(6):
            file = tmp_path / "images" / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((28, 28), 10.0 + 40 * number).save(file)

    def flower_ist(*words: str) -> str:
        code = "from flower_ist.cli import app; app()"
        return run(sys.executable, "-c", code, *words, cwd=tmp_path, PYTHONPATH=str(library))

    prep = ["prep", "images", "--out", "shards", "--clients", "2", "--test-share", "0.25"]
    flower_ist(*prep)
    assert (tmp_path / "shards" / "client-1").is_dir()
    flower_ist("deploy", "init", "lab", "--nodes", "2", "--host", "127.0.0.1")
    flower_ist("compare", "--out", "c", "--strategies", "ridge", "--clients", "2", "--seeds", "1")
    assert (tmp_path / "c" / "report.html").stat().st_size > 10_000
    where = "import flower_ist.runs.app_import as a, server_app; print(a.find_app(), server_app)"
    told = run(sys.executable, "-c", where, cwd=tmp_path, PYTHONPATH=str(library))
    assert told.startswith(str(library / "flower_ist" / "app"))
    assert str(library / "server_app") in told
