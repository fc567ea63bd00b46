"""How is a chart drawn so that it needs no library, no network and no colour it did not choose?

Charts are inline SVG with classes instead of colours: the page's stylesheet gives each arm its tone
(`--c`), in light, dark and print, and one short script turns the `data-tip` of each dot into a
tooltip. Everything works without the script, through `<title>`. Texts are escaped here.
"""

from holdfast.report.charts.axis import Axis, fit_axis
from holdfast.report.charts.course import course
from holdfast.report.charts.labels import clip, spread
from holdfast.report.charts.looks import Look, looks, swatch
from holdfast.report.charts.marks import Dot, Line
from holdfast.report.charts.scatter import scatter
from holdfast.report.charts.trade_off import Track, trade_off

__all__ = [
    "Axis",
    "Dot",
    "Line",
    "Look",
    "Track",
    "clip",
    "course",
    "fit_axis",
    "looks",
    "scatter",
    "spread",
    "swatch",
    "trade_off",
]
