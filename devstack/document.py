"""Writes the pages of docs/ that say what the code says: python -m devstack.document.

docs/api.md from the client's docstrings, docs/commands.md from its command line, docs/runtimes.md from the runtimes' lists,
docs/notebook.md from the notebook in examples/.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from devstack import runtimes

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTEBOOK = ROOT / "examples" / "first_email.ipynb"
_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)


def api() -> str:
    """What `import btrdbextras` offers, from its docstrings."""
    parts = [
        "# The Python API",
        "",
        "Written by `make docs` from the docstrings in `client/`; `help()` says the same.",
        "",
    ]
    for title, module in (("btrdbextras", "btrdbextras"), ("btrdbextras.eventproc", "btrdbextras.eventproc")):
        loaded = importlib.import_module(module)
        parts += [f"## {title}", "", inspect.getdoc(loaded) or "", ""]
        offered = [(name, getattr(loaded, name)) for name in loaded.__all__ if not name.startswith("_")]
        for name, value in sorted(offered, key=lambda one: (inspect.isclass(one[1]), one[0])):
            parts += _described(name, value)
    errors = importlib.import_module("btrdbextras.errors")
    parts += [
        "## btrdbextras.errors",
        "",
        inspect.getdoc(errors) or "",
        "",
        "| error | is also | when |",
        "|---|---|---|",
    ]
    for name, value in vars(errors).items():
        if inspect.isclass(value):
            bases = ", ".join(f"`{base.__name__}`" for base in value.__bases__)
            parts.append(f"| `{name}` | {bases} | {inspect.getdoc(value)} |")
    return "\n".join(parts) + "\n"


def _described(name: str, value: Any) -> list[str]:
    if not callable(value):
        return []
    fields = getattr(value, "_fields", None)
    signature = f"({', '.join(fields)})" if fields else re.sub(r" -> .*| *: [^,()=]+(?==)", "", str(_signature(value)))
    return [
        f"### {name}",
        "",
        "```python",
        f"{name}{signature}",
        "```",
        "",
        *_sections(inspect.getdoc(value) or ""),
        "",
    ]


def _signature(value: Any) -> inspect.Signature:
    """Without annotations: the sections say the types in words."""
    found = inspect.signature(value)
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
    return found.replace(parameters=bare, return_annotation=inspect.Signature.empty)


def _sections(doc: str) -> Iterator[str]:
    """A docstring in numpydoc's sections, as markdown."""
    first, *rest = _SECTION.split(doc)
    yield _prose(first)
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        yield f"\n**{title}**\n"
        yield f"```python\n{body.strip()}\n```" if title == "Example" else _entries(body)


def _entries(body: str) -> str:
    found: list[str] = []
    for line in body.strip().splitlines():
        if line and not line.startswith(" "):
            name, colon, kind = line.partition(": ")
            found.append(f"- `{name}`: *{kind}*" if colon else f"- {line}")
        elif line.strip():
            found.append(f"  {line.strip()}")
    return "\n".join(found)


def _prose(text: str) -> str:
    return text.strip().replace("<", "&lt;")


def commands() -> str:
    """The users' command line, from its own help."""
    from btrdbextras.commands import NAME, cli
    from btrdbextras.commands.show import EXIT_CODES

    parts = [
        f"# {NAME}",
        "",
        "Written by `make docs` from the command line itself; `eventproc COMMAND --help` says the same.",
        "",
    ]
    parts += [
        _help(cli.help),
        "",
        'Completion: `eval "$(eventproc completion bash)"` in `~/.bashrc` (zsh and fish likewise).',
        "",
    ]
    parts += ["| exit code | |", "|---|---|", *(f"| {code} | {what} |" for code, what in EXIT_CODES), ""]
    for name, command in sorted(cli.commands.items()):
        context = click.Context(command, info_name=f"{NAME} {name}")
        usage = " ".join(command.collect_usage_pieces(context))
        parts += [f"## {name}", "", "```", f"{NAME} {name} {usage}", "```", "", _help(command.help), ""]
        for one in command.get_params(context):
            record = one.get_help_record(context)
            if record is not None and record[1] and "--help" not in record[0]:
                parts.append(f"- `{record[0]}` {record[1]}".rstrip())
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _help(text: str | None) -> str:
    return re.sub(r"[\b]\n", "", inspect.cleandoc(text or ""))


def installed() -> str:
    """What is installed in each runtime, from the lists that they are built from."""
    parts = [
        "# What is installed where a handler runs",
        "",
        "Written by `make docs` from `executor/runtimes/`. A handler runs in",
    ]
    parts += ["the runtime of the Python that registered it; an installation may serve fewer of them, or others.", ""]
    for one in runtimes.listed():
        pins = dict(re.findall(r"^([\w.-]+)==([^\s\\;]+)", one.file.read_text(), re.MULTILINE))
        wanted = sorted({re.split(r"[\[=<>]", name)[0] for name in one.wants})
        main = ", ".join(f"{name} {pins[name]}" for name in wanted if name in pins)
        others = ", ".join(sorted(set(pins) - set(wanted)))
        parts += [f"## {one.file.stem}", "", f"{main}.", "", f"And what these bring: {others}.", ""]
    return "\n".join(parts).rstrip() + "\n"


def notebook() -> str:
    """The notebook as a page."""
    parts = ["<!-- Written by `make docs` from examples/first_email.ipynb, which a test runs. -->", ""]
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            text = f"```python\n{text}\n```"
        parts += [text.replace("](../docs/", "]("), ""]
    return "\n".join(parts).rstrip() + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "api.md": api, "commands.md": commands, "runtimes.md": installed, "notebook.md": notebook,
}  # fmt: skip


def main() -> None:
    """Writes them all."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    main()
