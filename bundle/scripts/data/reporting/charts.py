"""Small pictures of numbers as SVG text for the data report: no library, no identifiers, colours from the page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WIDTH, HEIGHT = 300, 120  # of a histogram, in pixels
LEFT, RIGHT, TOP, BOTTOM = 18, 18, 16, 20
BINS = 24
STRIP = (460, 22)  # of a box plot


def histogram(values: Sequence[float], unit: str) -> str:
    """How often values occur; where all are equal, one bar."""
    if not values:
        return '<p class="faint">nothing known</p>'
    ticks = _ticks(min(values), max(values))
    low, high = min(ticks[0], min(values)), max(ticks[-1], max(values))
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    wide, tall = (WIDTH - LEFT - RIGHT) / BINS, HEIGHT - TOP - BOTTOM
    parts = []
    for number in np.flatnonzero(counts):
        height = max(1.5, tall * counts[number] / counts.max())
        place = f'x="{_px(LEFT + wide * number + 0.5)}" y="{_px(TOP + tall - height)}"'
        told = f"<title>{_say(edges[number])} to {_say(edges[number + 1])} {unit}: {counts[number]}</title>"
        parts.append(f'<rect class="bar" {place} width="{_px(wide - 1)}" height="{_px(height)}">{told}</rect>')
    base = TOP + tall
    parts.append(f'<path class="axis" d="M{LEFT} {_px(base + 0.5)}H{WIDTH - RIGHT}"/>')
    for tick in ticks:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (tick - low) / (high - low)
        parts.append(f'<path class="axis" d="M{_px(x)} {_px(base)}v4"/>')
        parts.append(f'<text x="{_px(x)}" y="{HEIGHT - 4}" text-anchor="middle">{_say(tick)}</text>')
    parts.append(f'<text x="{LEFT}" y="10">tallest bar: {counts.max()} of {len(values)}</text>')
    return _svg(WIDTH, HEIGHT, f"histogram in {unit}" if unit else "histogram", parts)


def box_plot(found: Mapping[str, Any], values: Sequence[float], low: float, high: float, color: str) -> str:
    """Quartiles, extremes and the values themselves on a logarithmic axis from ``low`` to ``high``, both above 0.

    Args:
        found: from ``quartiles``.
        values: above 0.
        low: left end of the axis.
        high: right end.
        color: of the box, as CSS has it.
    """
    names = ("min", "lower_quartile", "median", "upper_quartile", "max")
    ends = [_log_place(float(found[name]), low, high) for name in names]
    first, lower, middle, upper, last = ends
    dots = [f'<circle class="dot" cx="{_px(_log_place(value, low, high))}" cy="11" r="1.5"/>' for value in values]
    parts = [
        f'<path class="axis" d="M{_px(first)} 11H{_px(last)}M{_px(first)} 7v8M{_px(last)} 7v8"/>',
        f'<rect x="{_px(lower)}" y="4" width="{_px(max(upper - lower, 1))}" height="14" rx="2" fill="{color}"/>',
        *dots,
        f'<path class="median" d="M{_px(middle)} 3v16"/>',
    ]
    return _svg(*STRIP, "box plot", parts)


def log_axis(low: float, high: float) -> str:
    """The axis above box plots from ``low`` to ``high``: powers of ten."""
    powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    step = max(1, math.ceil(len(powers) / 5))
    parts = []
    for power in powers[::step]:
        x = _log_place(10.0**power, low, high)
        parts.append(f'<path class="axis" d="M{_px(x)} 17v5"/>')
        parts.append(f'<text x="{_px(x)}" y="13" text-anchor="middle">{10.0**power:g}</text>')
    return _svg(*STRIP, "millilitres", parts)


def log_ends(values: Sequence[float]) -> tuple[float, float]:
    """Powers of ten around the values that are above 0."""
    known = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    return 10.0**low, 10.0 ** max(high, low + 1)


def _log_place(value: float, low: float, high: float) -> float:
    share = (math.log10(max(value, low)) - math.log10(low)) / (math.log10(high) - math.log10(low))
    return 12 + (STRIP[0] - 24) * min(share, 1.0)


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that hold the values between them."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - max(abs(low) * 0.5, 0.5), high + max(abs(high) * 0.5, 0.5)
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg {size} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _say(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10000 else f"{value:.0f}"
