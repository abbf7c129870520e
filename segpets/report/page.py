"""HTML pages in a single file, which need no network."""

import base64
import io
import re
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

_WEBP_LIMIT = 16383


def render(package: str, template: str, **values: Any) -> str:
    """Fills in a template; all values are escaped."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    return environment.get_template(template).render(**values)


def encodable(text: str) -> str:
    """Replaces lone surrogates, which UTF-8 can't encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def breakable(text: str) -> Markup:
    """Escapes a text, and lets its lines break after punctuation."""
    return Markup(re.sub(r"(?<=[_/.,:=])", "<wbr>", str(escape(text))))


def embedded(picture: NDArray[np.uint8], *, quality: int = 90) -> str:
    """Encodes a picture, uint8 (H, W, 3), as an address that holds the picture itself.

    Args:
        picture: RGB.
        quality: The quality of the WebP, up to 100.
    """
    content = io.BytesIO()
    image = Image.fromarray(picture)
    if max(image.size) > _WEBP_LIMIT:
        image.save(content, "PNG")
        kind = "png"
    else:
        image.save(content, "WEBP", quality=quality)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
