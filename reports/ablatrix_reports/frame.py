"""What every page shares: its style, its script and the policy that lets no other run, in one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("ablatrix_reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def body(template: str, **values: Any) -> Markup:
    """A part of a page: everything in `values` that is not markup of our own is escaped."""
    return Markup(_templates().get_template(template).render(**values))


def page(title: str, bodies: Sequence[Markup], contents: Sequence[Mapping[str, str]] = ()) -> str:
    """The whole page. contents: `anchor`, `title`, `progress` and `claims` of each body, for a page of several."""
    script, style = (_templates().get_template(name).render() for name in ("page.js", "page.css"))
    return body(
        "page.html",
        title=title,
        bodies=bodies,
        contents=contents,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(style),
    )
