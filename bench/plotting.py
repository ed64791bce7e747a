"""What the scripts that draw a benchmark's JSON object have in common."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def begin(usage: str | None) -> tuple[Any, Any]:
    """The benchmark's object, from the first of the two arguments, and pyplot. Exits with
    `usage` when there are not two arguments, and with the remedy without matplotlib."""
    if len(sys.argv) != 3:
        sys.exit(usage)
    try:
        import matplotlib
    except ImportError:
        sys.exit("matplotlib is missing: apt install python3-matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "kdn"
    from matplotlib import pyplot

    return json.loads(Path(sys.argv[1]).read_text()), pyplot


def save(figure: Any) -> None:
    """Writes the drawing to the second argument; equal drawings have equal bytes."""
    figure.savefig(sys.argv[2], metadata={"Date": None})
