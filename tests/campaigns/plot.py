"""Lines over a growing size, drawn as one SVG: the size on a logarithmic scale, the cost from zero. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 320, 60, 20, 46, 50
INKS = ("#1f5fa8", "#b3541e", "#2c7a3f")
STYLE = "font: 13px sans-serif; fill: #222"


@dataclass(frozen=True)
class Line:
    """What grew, and by its size the cost: median, least, most."""

    name: str
    points: Sequence[tuple[float, float, float, float]]


def draw(title: str, unit: str, lines: Sequence[Line]) -> str:
    """The picture."""
    sizes = [point[0] for line in lines for point in line.points] or [1.0]
    top = _round_up(max([point[3] for line in lines for point in line.points], default=1.0))
    low, high = math.floor(math.log10(min(sizes))), math.ceil(math.log10(max(sizes)))
    high = max(high, low + 1)

    def x(size: float) -> float:
        return round(LEFT + (math.log10(size) - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(cost: float) -> float:
        return round(HEIGHT - BOTTOM - cost / top * (HEIGHT - TOP - BOTTOM), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" style="{STYLE}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for tenth in range(5):
        cost = top * tenth / 4
        parts.append(f'<path d="M{LEFT} {y(cost)}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(cost) + 4}" text-anchor="end">{cost:g}</text>')
    parts += [
        f'<text x="{x(10**power)}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{10**power:,}</text>'
        for power in range(low, high + 1)
    ]
    parts.append(f'<text x="{LEFT}" y="18">{escape(f"{title}, {unit}")}</text>')
    for number, line in enumerate(lines):
        parts += _line(line, INKS[number % len(INKS)], [(x(p[0]), *map(y, p[1:])) for p in line.points])
        parts.append(
            f'<text x="{LEFT + 250 * number}" y="{HEIGHT - 8}" style="{STYLE.replace("#222", INKS[number % 3])}">by {escape(line.name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _line(line: Line, ink: str, points: Sequence[tuple[float, ...]]) -> list[str]:
    """The medians joined, and from the least to the most at each."""
    drawn = [
        f'<path d="M{x} {least}V{most}" stroke="{ink}" stroke-width="2" opacity=".5"/>' for x, _, least, most in points
    ]
    drawn += [f'<circle cx="{x}" cy="{mid}" r="4" fill="{ink}"/>' for x, mid, _, _ in points]
    path = "L".join(f"{x} {mid}" for x, mid, _, _ in points)
    return [*drawn, f'<path d="M{path}" fill="none" stroke="{ink}" stroke-width="2"/>'] if line.points else drawn


def _round_up(value: float) -> float:
    """The next 1, 2, 4 or 8 times a power of ten."""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value)
