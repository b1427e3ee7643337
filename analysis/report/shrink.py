"""Halve the size of Matplotlib's SVG without a visible change, so that the report can be mailed.

Paths become relative steps in hundredths of a typographic point, and pixels lossless WebP.
"""

import base64
import io
import re
from functools import lru_cache

PATH = re.compile(r'\bd="([^"]*)"')
PIXELS = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)")
ARGUMENTS = {"M": 2, "L": 2, "Q": 4, "C": 6, "z": 0}


def shrink(svg: str) -> str:
    """Rewrite an SVG in fewer characters, without XML declaration and document type."""
    paths = PATH.sub(lambda found: f'd="{relative_path(found[1])}"', svg[svg.index("<svg") :])
    return " ".join(PIXELS.sub(lambda found: _webp(found[1]), paths).split())


def relative_path(path: str) -> str:
    """Rewrite a path of M, L, Q, C and z in relative coordinates with two decimals; return any other unchanged.

    Steps are differences of rounded positions, so that rounding errors do not accumulate.
    """
    tokens = path.split()
    parts: list[str] = []
    x = y = position = 0
    start, last = (0, 0), ""
    while position < len(tokens):
        command = tokens[position]
        if command not in ARGUMENTS:
            return path
        numbers = tokens[position + 1 : position + 1 + ARGUMENTS[command]]
        try:
            places = [round(float(number) * 100) for number in numbers]
        except ValueError:
            return path
        position += 1 + len(numbers)
        if command == "z":
            parts.append("z")
            x, y = start
        elif command == "M":
            parts.append(f"M{_decimal(places[0])} {_decimal(places[1])}")
            x, y = start = (places[0], places[1])
        else:
            steps = [_decimal(place - (y if index % 2 else x)) for index, place in enumerate(places)]
            parts.append(f"{' ' if command == last else command.lower()}{' '.join(steps)}")
            x, y = places[-2], places[-1]
        last = command
    return "".join(parts).replace(" -", "-")


@lru_cache(maxsize=65_536)
def _decimal(hundredths: int) -> str:
    return f"{hundredths / 100:.2f}".rstrip("0").rstrip(".").replace("0.", ".", 1 if abs(hundredths) < 100 else 0)


def _webp(png: str) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        image.save(buffer, "WEBP", lossless=True, quality=50, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
