"""Horizontal bars as SVG, readable on a light and on a dark page."""

from __future__ import annotations

from html import escape
from statistics import median

ROW = 26
LEFT = 330
WIDTH = 860
SCALE_RIGHT = 60
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:15px}"
    ".ours{fill:#0969da}.peer{fill:#8c959f}.line{stroke:#24292f;stroke-width:1}"
    ".one{stroke:#bc4c00;stroke-width:1;stroke-dasharray:4 3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.ours{fill:#4493f8}.peer{fill:#6e7681}.line{stroke:#e6edf3}"
    ".one{stroke:#f0883e}}"
)


def bars(title: str, rows: list[tuple[str, list[float], bool]]) -> str:
    """Draw a bar to the median and a whisker from lowest to highest; ``rows``: label, numbers, whether it is ours."""
    top = max(max(numbers) for _label, numbers, _ours in rows)
    scale = (WIDTH - LEFT - SCALE_RIGHT) / top
    height = ROW * len(rows) + 60
    drawn = [_row(48 + ROW * index, row, scale) for index, row in enumerate(rows)]
    one = LEFT + scale
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{escape(title)}</title><style>{STYLE}</style>",
            f'<text class="title" x="10" y="24">{escape(title)}</text>',
            *drawn,
            f'<line class="one" x1="{one:.1f}" x2="{one:.1f}" y1="38" y2="{height - 8}"/>',
            "</svg>\n",
        ]
    )


def _row(y: int, row: tuple[str, list[float], bool], scale: float) -> str:
    label, numbers, ours = row
    width, low, high = median(numbers) * scale, LEFT + min(numbers) * scale, LEFT + max(numbers) * scale
    middle = y + 7
    return (
        f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>'
        f'<rect class="{"ours" if ours else "peer"}" x="{LEFT}" y="{y}" width="{max(1.0, width):.1f}" height="15"/>'
        f'<line class="line" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<text x="{high + 6:.1f}" y="{y + 12}">{median(numbers):.2f}</text>'
    )
