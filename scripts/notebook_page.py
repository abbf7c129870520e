"""A notebook as one HTML page that needs no network."""

import html
import re

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter

TEMPLATE = """\
{%- extends "lab/index.html.j2" -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
body.jp-Notebook main { max-width: 1000px; margin: 0 auto; }
.jp-RenderedHTMLCommon p, .jp-RenderedHTMLCommon li { font-size: 15px; line-height: 1.55; }
.jp-RenderedText pre { white-space: pre; overflow-x: auto; }
.jp-RenderedMarkdown { overflow-x: auto; }
.jp-RenderedImage img { max-width: 100%; height: auto; }
.way { display: flex; gap: 2em; max-width: 1000px; margin: 1em auto; font: 15px sans-serif; }
</style>
{%- endblock -%}
"""
"""nbconvert's page without the scripts that it would fetch: no notebook needs them."""


def title(notebook: nbformat.NotebookNode) -> str:
    """The notebook's heading."""
    return str(notebook.cells[0].source).partition("\n")[0].removeprefix("# ")


def page(notebook: nbformat.NotebookNode) -> str:
    """Writes a notebook, with what outputs it has, as one HTML file."""
    exporter = HTMLExporter(
        template_file="segpets-notebook", extra_loaders=[DictLoader({"segpets-notebook": TEMPLATE})]
    )
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    notebook.metadata["title"] = title(notebook)
    text, _ = exporter.from_notebook_node(notebook)
    return re.sub(r'href="(\w+)\.ipynb"', r'href="\1.html"', str(text))  # the pages of the others


def with_links(page: str, links: dict[str, str], note: str = "") -> str:
    """Puts links, and a note beside them, above a page.

    Args:
        page: What `page` gave.
        links: Addresses by their words.
        note: Plain text.
    """
    words = [f'<a href="{html.escape(to)}">{html.escape(word)}</a>' for word, to in links.items()]
    way = f'<nav class="way">{"".join(words)}<span>{html.escape(note)}</span></nav>'
    return re.sub(r"(<body[^>]*>)", rf"\g<1>{way}", page, count=1)
