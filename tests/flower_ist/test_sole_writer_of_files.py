"""flower_ist/files.py is the only module that writes files."""

from __future__ import annotations

import ast

from tests.fakes import ROOT

# What opens for writing, moves or cuts, by the last part of its name.
WRITERS = {
    *("write_text", "write_bytes", "touch", "symlink_to", "hardlink_to", "truncate", "ftruncate"),
    *("rename", "renames", "link", "symlink", "move", "copy2", "copyfile", "fdopen"),
    *("mkstemp", "NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory", "save_file"),
    *("save_model", "imsave", "tofile", "memmap"),
}
# A lock without content.
ALLOWED = {("flower_ist/compare/folder.py", "open")}


def writes(call: ast.Call) -> str:
    """Return the name of a call that writes a file by itself, or an empty text."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    owner = getattr(getattr(call.func, "value", None), "id", "")
    texts = [ast.unparse(argument) for argument in (*call.args, *(k.value for k in call.keywords))]
    if name == "open" and owner == "os":
        return name if any("O_CREAT" in text or "WR" in text for text in texts) else ""
    if name == "open":
        modes = [text.strip("'\"") for text in texts if text[:1] in "'\""]
        return name if any(set(mode) & set("wax+") and len(mode) <= 3 for mode in modes) else ""
    # Of a path it takes one argument, of a text two.
    if name == "replace":
        return name if owner == "os" or (len(call.args) == 1 and not call.keywords) else ""
    # A function of ours has a name of pathlib's.
    is_ours = name == "write_text" and isinstance(call.func, ast.Name)
    return name if name in WRITERS and not is_ours else ""


def test_nothing_else_writes_files():
    found = set()
    for package in ("flower_ist", "client_app", "server_app", "data_prep"):
        for file in sorted((ROOT / package).rglob("*.py")):
            module = file.relative_to(ROOT).as_posix()
            nodes = ast.walk(ast.parse(file.read_text()))
            calls = [node for node in nodes if isinstance(node, ast.Call)]
            found |= {(module, writes(call)) for call in calls if writes(call)}
    ours = {name for module, name in found if module == "flower_ist/files.py"}
    assert {"truncate", "rename", "replace", "open"} <= ours
    assert {entry for entry in found if entry[0] != "flower_ist/files.py"} == ALLOWED
