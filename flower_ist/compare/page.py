"""The report of a comparison as one HTML file that can be mailed: nothing in it is loaded."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from flower_ist.compare.analyze import BUDGET_SHARES, Comparison, Result
from flower_ist.compare.figures import PICTURES
from flower_ist.compare.tables import (
    NOT_FEDERATED,
    Row,
    budget_column,
    front_sentences,
    megabytes,
    percent,
    row,
    size,
)

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem;
       color: #1a1a1a; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f4f4f4; padding: .6rem; }
small { color: #555; }
"""


def to_html(
    comparison: Comparison,
    plan: Mapping[str, Any],
    command: str,
    pictures: Mapping[str, bytes],
    failed: Mapping[str, str],
) -> str:
    """Return the report.

    Every figure of the table stands in a ``data`` element with the very text of the CSV file.

    Args:
        comparison: the figures.
        plan: the plan as JSON values.
        command: what repeats the comparison.
        pictures: file name -> PNG.
        failed: run -> why it failed.
    """
    body = [
        "<h1>Strategies compared</h1>",
        _p(
            f"{plan['clients']} clients, {plan['rounds']} rounds, {plan['seeds']} seeds, "
            f"{plan['data'] or 'the embedded demo tokens'}. Accuracies are in percent on the "
            "server's test examples: the median over the seeds. MB are 10^6 bytes on the wire in "
            "both directions, measured on serialized messages."
        ),
        *_failures(failed),
        "<h2>Figures</h2>",
        _main_table(comparison),
        _p(
            "Best: the round with the best validation accuracy. Ensemble: the same for the "
            "averaged logits of slices that stay the same, each a net of its own. Target: "
            f"{percent(comparison.target_accuracy)} %. Budgets are shares of the bytes of "
            f"{comparison.reference}."
        ),
        "<h2>What to take for which budget</h2>",
        "<ul>" + "".join(f"<li>{escape(s)}</li>" for s in front_sentences(comparison)) + "</ul>",
        _p("These are the points that no other beats with as many bytes or fewer (Pareto front)."),
        *(_picture(name, pictures[name]) for name in PICTURES if name in pictures),
        "<h2>Settings</h2>",
        _settings(comparison, plan),
        "<h2>Do it again</h2>",
        f"<pre>{escape(command)}</pre>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # An icon of its own, or a browser would ask the server for one.
        '<link rel="icon" href="data:,">\n'
        f"<title>Strategies compared</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _main_table(comparison: Comparison) -> str:
    headings = ["strategy", "best", "lowest", "highest", "last", "ensemble"]
    headings += ["MB", "MB to target"]
    headings += [
        f"at {size(budget)} ({100 * share:g} %)"
        for share, budget in zip(BUDGET_SHARES, comparison.budgets, strict=True)
    ]
    headings += ["kB of a round down", "kB up", "MB of a client", "coverage", "settings"]
    lines = [_line(result) for result in comparison.results]
    return _table("figures", headings, lines)


def _line(result: Result) -> list[str]:
    figures = row(result)
    cells = [_data(figures, "strategy", result.strategy)]
    accuracies = ["best_accuracy", "best_accuracy_low", "best_accuracy_high"]
    accuracies += ["final_accuracy", "ensemble_accuracy"]
    cells += [_data(figures, name, percent(_number(figures, name))) for name in accuracies]
    if result.federated:
        for name in ("wire_bytes", "bytes_to_target"):
            cells.append(_data(figures, name, megabytes(_number(figures, name))))
        for name in map(budget_column, BUDGET_SHARES):
            cells.append(_data(figures, name, percent(_number(figures, name))))
        for name in ("round_bytes_down", "round_bytes_up"):
            cells.append(_data(figures, name, f"{(_number(figures, name) or 0.0) / 1e3:.1f}"))
        cells.append(_data(figures, "client_bytes", megabytes(_number(figures, "client_bytes"))))
    else:
        cells.append(NOT_FEDERATED)
        cells += ["-"] * (len(BUDGET_SHARES) + 4)
    cells.append(_data(figures, "coverage", percent(_number(figures, "coverage"))))
    cells.append(_data(figures, "settings", result.settings))
    return cells


def _data(figures: Row, name: str, shown: str) -> str:
    value = figures[name]
    text = "" if value is None else str(value)
    return f'<data class="{name}" value="{escape(text)}">{escape(shown)}</data>'


def _number(figures: Row, name: str) -> float | None:
    value = figures[name]
    return None if value is None else float(value)


def _table(name: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already, under headings that are not."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    rows = ("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines)
    return (
        f'<div class="wide"><table id="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _picture(name: str, png: bytes) -> str:
    title = PICTURES[name][0]
    source = base64.b64encode(png).decode()
    return (
        f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="data:image/png;base64,{source}">'
    )


def _settings(comparison: Comparison, plan: Mapping[str, Any]) -> str:
    lines = [(key, str(value)) for key, value in plan.items() if key not in ("settings", "sweep")]
    lines += [(key, str(value)) for key, value in plan["settings"].items()]
    for key, values in plan["sweep"].items():
        lines.append((f"{key} (swept)", ", ".join(map(str, values))))
    lines.append(("settings not named here", "as in the app's pyproject.toml"))
    return _table("settings", ["setting", "value"], [list(map(escape, line)) for line in lines])


def _failures(failed: Mapping[str, str]) -> list[str]:
    if not failed:
        return []
    items = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in failed.items())
    return ["<h2>Runs that failed</h2>", f"<ul>{items}</ul>"]


def _p(text: str) -> str:
    return f"<p>{escape(text)}</p>"
