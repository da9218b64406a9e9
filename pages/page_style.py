"""What the pages that arcshard writes have in common: system fonts, light or dark as the reader has it, any width."""

# How each page begins, before its title: it may load nothing but what it holds.
HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
"""

BASE = """
:root { color-scheme: light dark;
        --ink: #1f2328; --quiet: #57606a; --line: #d8dee4; --paper: #fff; --frame: #f3f4f6;
        --right: #1a7f37; --wrong: #b3261e; --computing: #0b5cad; --waiting: #e8a33d; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --quiet: #9aa4af; --line: #30363d; --paper: #0d1117; --frame: #161b22;
          --right: #4ac26b; --wrong: #ff7b72; --computing: #4493f8; --waiting: #d29922; }
  .charts img { filter: invert(1) hue-rotate(180deg); }  /* light on dark, in their hues */
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 1.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
       font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 1rem; font-size: 1.75rem; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); font-size: 1.25rem; }
h3 { margin: 2rem 0 .75rem; font-size: 1rem; }
p { max-width: 70ch; }
figure { margin: 0; min-width: 0; }
figcaption { overflow-wrap: anywhere; font-size: .8125rem; line-height: 1.35; }
img { display: block; width: 100%; }
.quiet { color: var(--quiet); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; margin: 0; }
.tiles div { display: flex; flex-direction: column; justify-content: space-between; padding: .75rem 1rem;
             border: 1px solid var(--line); border-radius: .5rem; }
.tiles dt { color: var(--quiet); font-size: .875rem; }
.tiles dd { margin: 0; font-size: 1.625rem; font-weight: 600; font-variant-numeric: tabular-nums; }
@media (max-width: 700px) {
  body { padding: 1rem .75rem 3rem; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
}
"""
