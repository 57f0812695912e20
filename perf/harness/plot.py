"""The figures as a plot: one SVG of three panels over the number of calls. Sans-IO, and no library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from perf.harness.figures import Figures

WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 45
COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#edae49")
STEPS_OF_SCALE = 4

Value = Callable[[Figures], float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """A name and its points: calls, value."""

    name: str
    points: tuple[tuple[float, float], ...]


def curves(steps: Sequence[Figures], values: dict[str, Value]) -> list[Curve]:
    """A curve for each server and value that has any points."""
    found = []
    servers = list(dict.fromkeys(step.server for step in steps))
    for server in servers:
        for name, value in values.items():
            points = [
                (float(step.calls), figure)
                for step in steps
                if step.server == server and (figure := value(step)) is not None
            ]
            if points:
                label = f"{server}: {name}" if len(servers) > 1 else name
                found.append(Curve(label, tuple(sorted(points))))
    return found


def nice(most: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    scale = 1.0
    while most > 10 * scale:
        scale *= 10
    while most <= scale and scale > 1e-9:
        scale /= 10
    return next(step * scale for step in (1, 2, 5, 10) if most <= step * scale)


def panel(title: str, unit: str, drawn: Sequence[Curve], at_x: int) -> str:
    """One panel, as a group."""
    points = [point for curve in drawn for point in curve.points]
    most_x = max((x for x, _ in points), default=1.0)
    most_y = nice(max((y for _, y in points), default=1.0) or 1.0)
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + wide * x / most_x, TOP + high * (1 - y / most_y)

    parts = [
        f'<g transform="translate({at_x},0)">',
        f'<text x="{LEFT}" y="18" class="t">{escape(title)}</text>',
    ]
    for step in range(STEPS_OF_SCALE + 1):
        value = most_y * step / STEPS_OF_SCALE
        _, y = place(0, value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="g"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="y">{value:g}</text>')
    parts += [
        f'<text x="{place(x, 0)[0]:.1f}" y="{HEIGHT - BOTTOM + 16}" class="x">{x:g}</text>'
        for x in sorted({x for x, _ in points})
    ]
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" class="y">calls at a time</text>')
    parts.append(f'<text x="{LEFT - 6}" y="{TOP - 10}" class="y">{escape(unit)}</text>')
    for number, curve in enumerate(drawn):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in curve.points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for point in curve.points:
            x, y = place(*point)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        parts.append(
            f'<text x="{LEFT + 8}" y="{TOP + 12 + 14 * number}" fill="{colour}">{escape(curve.name)}</text>'
        )
    return "\n".join([*parts, "</g>"])


def svg(steps: Sequence[Figures]) -> str:
    """Latency, spacing and cost over the number of calls."""
    panels = [
        (
            "Turn latency, wire to wire",
            "ms",
            curves(
                steps,
                {
                    "p50": lambda s: s.latency_ms.p50,
                    "p95": lambda s: s.latency_ms.p95,
                    "p99": lambda s: s.latency_ms.p99,
                },
            ),
        ),
        ("Playout spacing error", "ms", curves(steps, {"p99.9": lambda s: s.spacing_error_ms.p99_9})),
        ("Server's CPU per call-second", "ms", curves(steps, {"all": lambda s: s.cpu_ms_whole or None})),
    ]
    body = "\n".join(panel(*drawn, WIDTH * number) for number, drawn in enumerate(panels))
    style = (
        "text{font:11px sans-serif}.t{font-weight:bold;font-size:13px}.x{text-anchor:middle}.y{text-anchor:end}"
        ".g{stroke:#ddd}"
    )
    whole = WIDTH * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{HEIGHT}" viewBox="0 0 {whole} {HEIGHT}">\n'
        f'<style>{style}</style>\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )
