"""The style sheet of the page: dark on light, one column, printable."""

CSS = """
:root { color-scheme: light; --ink: #1c2530; --soft: #5b6875; --line: #d9dfe5; --tint: #f4f6f8; --link: #0b5c97; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
a { color: var(--link); text-underline-offset: .15em; }
small, .lead, figcaption { color: var(--soft); }
.lead { font-size: 1.05rem; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .85em;
  overflow-wrap: anywhere; }
pre { background: var(--tint); padding: .8rem 1rem; overflow-x: auto; font-size: .8rem; line-height: 1.45;
  border-radius: 4px; }
sub, sup { line-height: 0; font-size: .72em; }
.bar { text-decoration: overline; }
.nowrap { white-space: nowrap; }
nav { font-size: .9rem; margin: 1rem 0 0; }
nav a { margin-right: 1.1rem; white-space: nowrap; display: inline-block; }
.note { border-left: 3px solid #d99a1c; background: #fdf8ec; padding: .6rem 1rem; margin: 1rem 0; max-width: 46rem; }
.note p { margin: .2rem 0; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.4rem 0; }
.tile { flex: 1 1 9.5rem; background: var(--tint); border-radius: 4px; padding: .7rem 1rem; }
.tile b { display: block; font-size: 1.6rem; font-weight: 600; line-height: 1.2; }
.tile span { font-size: .85rem; color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: 1rem 0; font-size: .92rem; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; max-width: 100%; }
table.plain { border-collapse: collapse; font-size: .86rem; margin: .8rem 0; font-variant-numeric: tabular-nums;
  line-height: 1.4; }
th, td { text-align: left; vertical-align: top; padding: .32rem .9rem .32rem 0; border-bottom: 1px solid var(--line); }
thead th { font-weight: 600; border-bottom: 1.5px solid var(--ink); vertical-align: bottom; }
tr.group td { font-weight: 600; padding-top: .9rem; border-bottom-color: var(--soft); }
.number { text-align: right; white-space: nowrap; }
th.number { white-space: normal; min-width: 4.5rem; }
.words { min-width: 9.5rem; }
table.rounds td:first-child { min-width: 13rem; }
figure { margin: 1.2rem 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 56rem; min-width: 34rem; }
figure svg.narrow { max-width: 36rem; min-width: 22rem; }
figcaption { font-size: .88rem; max-width: 46rem; margin-top: .3rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--link); font-size: .9rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .8rem; font-size: .85rem;
  color: var(--soft); }
@media (max-width: 40rem) {
  main { padding: 1.2rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dt { margin-top: .5rem; }
  table.rounds td:first-child { min-width: 9rem; }
}
@media print {
  @page { margin: 15mm; }
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  a { color: inherit; text-decoration: none; }
  h2 { margin-top: 1.6rem; }
  h2, h3 { break-after: avoid; }
  pre { white-space: pre-wrap; }
  figure, tr, .tile { break-inside: avoid; }
  figure svg, figure svg.narrow { min-width: 0; }
  table.plain { font-size: 7.5pt; }
  .scroll { overflow: visible; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""
