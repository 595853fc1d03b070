"""Pages that MkDocs generates from the code: the command line and the schema of search spaces."""

import inspect
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer import Context
from typer.cli import get_docs_for_click
from typer.main import get_command

import igq
import pipeline
import search_spaces
from docs.griffe_examples import fenced
from pipeline.cli import app
from search_spaces import SearchSpace

TOP = "\n\nGenerated from the code.\n\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"cli": command_line(), "spaces": spaces(), "search_spaces": names(search_spaces)}
    pages |= {"igq": names(igq), "pipeline": names(pipeline)}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def command_line() -> str:
    """Return the help of every command."""
    command = get_command(app)
    context = Context(command, info_name="igq")
    text = get_docs_for_click(obj=command, ctx=context, name="igq", title="Command line")
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def spaces() -> str:
    """Return a table of the fields of a search space."""
    schema = SearchSpace.model_json_schema()
    rows = ["| field | meaning | values | default |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        if name != "name":
            meaning = field.get("description", "")
            default = "required" if name in schema["required"] else field["default"] or "none"
            rows.append(f"| `{name}` | {meaning} | {values(field, schema)} | {default} |")
    bundled = ", ".join(f"`{name}`" for name in search_spaces.names())
    parts = [
        f"# Search spaces{TOP}A search space is a YAML file; its name is the file's.",
        "[Write a search space](../how-to/space.md) says how to begin.",
        "",
        *rows,
        "",
        f"Bundled spaces: {bundled}.",
    ]
    return "\n".join(parts) + "\n"


def values(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """Describe the values that a field takes."""
    if "$ref" in field:
        return values(schema["$defs"][field["$ref"].rpartition("/")[2]], schema)
    if union := field.get("anyOf") or field.get("oneOf"):
        several = (values(one, schema) for one in union)
        return " or ".join(one for one in dict.fromkeys(several) if one != "null")
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "object":
        return "mapping of " + ", ".join(f"`{name}`" for name in field["properties"])
    if field.get("type") == "array":
        return "list of " + values(field.get("items", {}), schema)
    if "minimum" in field and "maximum" in field:
        return f"{field['minimum']} to {field['maximum']}"
    return str(field["type"])


def names(package: Any) -> str:
    """Return a page with the documentation of every public name."""
    text = f"# {package.__name__}{TOP}{fenced(inspect.getdoc(package) or '')}\n\n"
    for name in sorted(package.__all__, key=str.lower):
        value = getattr(package, name)
        named = inspect.isclass(value) or inspect.isfunction(value)
        at = f"{value.__module__}.{value.__qualname__}" if named else f"{package.__name__}.{name}"
        text += f"::: {at}\n    options:\n      heading: {name}\n      toc_label: {name}\n\n"
    return text
