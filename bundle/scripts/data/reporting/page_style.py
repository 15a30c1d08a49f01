"""How the data report looks: one style sheet, light or dark as the reader's machine is, and fit for paper."""

STYLE = """
:root { --paper: #ffffff; --card: #f5f6f8; --ink: #1c2127; --faint: #68717d; --line: #dfe3e8; --accent: #2f6fb3;
  --bar: #7ea8d3; --warn: #a94a12; --warn-back: #fdf1e7; --good: #2c7a4b; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --card: #1d2127; --ink: #e6e9ed; --faint: #98a1ad;
  --line: #323841; --accent: #7fb2ea; --bar: #44709f; --warn: #f0a878; --warn-back: #33241a; --good: #7fd1a1; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 28px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 40px 0 12px; padding-top: 12px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 0 0 4px; }
p { margin: 4px 0; }
a { color: var(--accent); }
.faint { color: var(--faint); }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0; }
.tile { background: var(--card); border-radius: 8px; padding: 12px 18px; min-width: 128px; }
.tile b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile.warn { background: var(--warn-back); color: var(--warn); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--faint); font-size: 13px; vertical-align: bottom; }
th, td { padding: 4px 18px 4px 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; }
td svg, th svg { display: block; }
.scroll { overflow-x: auto; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 8px; }
details { background: var(--warn-back); border-radius: 8px; padding: 8px 16px; margin: 8px 0; }
summary { cursor: pointer; font-weight: 600; color: var(--warn); }
details ul { margin: 8px 0; padding-left: 20px; }
.good { color: var(--good); font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 16px; }
.card { background: var(--card); border-radius: 8px; padding: 12px 16px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 14px; }
figure { margin: 0; background: var(--card); border-radius: 8px; overflow: hidden; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; background: #000000; }
figcaption { padding: 6px 12px 8px; font-size: 13px; }
.badge { display: inline-block; border-radius: 9px; padding: 0 8px; margin-left: 6px; font-size: 12px;
  background: var(--line); }
.badge.warn { background: var(--warn-back); color: var(--warn); }
svg { max-width: 100%; height: auto; }
.card svg { width: 100%; }
svg text { font: 11px system-ui, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--faint); }
.bar { fill: var(--bar); }
.axis { stroke: var(--faint); fill: none; stroke-width: 1; }
.median { stroke: var(--ink); fill: none; stroke-width: 2; }
.dot { fill: var(--ink); fill-opacity: 0.35; }
@media print { main { max-width: none; padding: 0; } .card, figure { border: 1px solid var(--line); } }
"""
