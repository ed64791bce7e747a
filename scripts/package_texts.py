#!/usr/bin/env python3
"""Makes plain text of the documents in Debian's packages, for scripts/texts.

python3 scripts/package_texts.py FILES OUT

FILES is where the packages were extracted. Needs nothing but Python.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from pathlib import Path

_LEFT_OUT = {"script", "style", "nav", "head", "header", "footer"}
_BREAKS = {"p", "div", "h1", "h2", "h3", "h4", "li", "tr", "pre", "br", "dt", "dd", "section", "table"}
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "pre"}


class _Text(HTMLParser):
    """The text of a page, without its navigation."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._left_out = 0
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._left_out += tag in _LEFT_OUT
        self._preformatted += tag == "pre"
        if tag in _BREAKS:
            self._parts.append("\n\n" if tag == "p" else "\n")

    def handle_endtag(self, tag: str) -> None:
        self._left_out = max(0, self._left_out - (tag in _LEFT_OUT))
        self._preformatted = max(0, self._preformatted - (tag == "pre"))
        if tag in _PARAGRAPHS:
            self._parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._left_out:
            self._parts.append(data if self._preformatted else re.sub(r"\s+", " ", data))

    def text(self) -> str:
        text = re.sub(r"[ \t]+\n", "\n", "".join(self._parts))
        text = re.sub(r"\n ", "\n", text)
        return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n\n"


def _read(path: Path) -> str:
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    text = data.decode("utf-8", "replace")
    if path.suffix != ".html":
        return text
    page = _Text()
    page.feed(text)
    return page.text()


def _joined(files: Iterable[Path]) -> str:
    text = "".join(_read(path) for path in sorted(files))
    return re.sub(".\b", "", text)  # overstriking


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    files, out = Path(sys.argv[1]), Path(sys.argv[2])
    python = files / "usr/share/doc/python3.11/html/_sources"
    texts: dict[str, Callable[[], Iterable[Path]]] = {
        "calibration/debian-policy.txt": lambda: (files / "usr/share/doc/debian-policy").glob("policy.txt*"),
        "calibration/developers-reference.txt": lambda: (files / "usr/share/developers-reference").glob(
            "[a-hj-rt-z]*.html"
        ),
        "calibration/fortunes.txt": lambda: (
            path
            for path in (files / "usr/share/games/fortunes").iterdir()
            if path.is_file() and not path.suffix and path.name not in ("ascii-art", "translate-me")
        ),
        "test/debian-faq.txt": lambda: (files / "usr/share/doc/debian/FAQ").rglob("*.en.html"),
        "test/python.txt": lambda: [*python.glob("tutorial/*.txt"), *python.glob("howto/*.txt")],
        "test/jargon.txt": lambda: (files / "usr/share/dictd").glob("jargon.dict*"),
    }
    for name, paths in texts.items():
        text = _joined(paths())
        if len(text) < 100_000:
            sys.exit(f"{name} has {len(text)} characters: the package has its files elsewhere")
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        print(f"{target.name}: {len(text)} characters", file=sys.stderr)


if __name__ == "__main__":
    main()
