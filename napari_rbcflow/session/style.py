"""How ``report.html`` looks, on a screen and on one A4 page."""

STYLE = """
@page { size: A4; margin: 11mm 13mm; }
* { box-sizing: border-box; }
body { font: 14px/1.4 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1a1a1a;
  background: #fff; max-width: 880px; margin: 0 auto; padding: 18px;
  -webkit-print-color-adjust: exact; print-color-adjust: exact; }
header { display: flex; justify-content: space-between; align-items: flex-end; gap: 16px;
  border-bottom: 2px solid #1a1a1a; margin-bottom: 12px; }
h1 { font-size: 22px; margin: 0 0 4px; overflow-wrap: anywhere; }
header > p { margin: 0 0 6px; color: #555; text-align: right; }
.kicker { margin: 0; color: #555; }
h2 { font-size: 14px; margin: 0 0 4px; }
p { margin: 0 0 6px; }
.warnings { list-style: none; margin: 0 0 12px; padding: 0; }
.warnings li { padding: 7px 12px; margin-bottom: 5px; border-left: 7px solid; overflow-wrap: anywhere; }
.warnings .grave { background: #fde8e4; border-color: #b3261e; font-size: 16px; }
.warnings .mild { background: #fff6da; border-color: #d9a400; }
.top { display: flex; gap: 26px; align-items: center; margin-bottom: 10px; }
.number { flex: 0 0 312px; border: 2px solid #0072b2; border-radius: 8px; padding: 10px 16px;
  text-align: center; }
.number.doubtful { border: 3px solid #b3261e; }
.number .doubt { color: #b3261e; font-weight: 700; margin-top: 6px; }
.number p { margin: 0; color: #444; }
.number .big { font-size: 62px; font-weight: 700; line-height: 1.1; color: #111; }
.number .none { font-size: 44px; color: #b3261e; }
.number .interval { font-size: 25px; margin-top: 4px; color: #111; }
.number.doubtful .big:not(.none), .number.doubtful .interval, .number.doubtful .corrected b,
.number .few b { color: #999; }
.number .corrected { margin-top: 6px; padding-top: 6px; border-top: 1px solid #ccc; font-size: 13px; }
.pair { display: flex; gap: 20px; }
figure { flex: 1 1 0; margin: 0 0 10px; min-width: 0; }
figure svg { width: 100%; height: auto; font: 11px system-ui, Arial, sans-serif; fill: #444; }
figcaption { font-size: 12px; color: #555; }
.key { display: inline-block; width: 10px; height: 10px; margin: 0 3px 0 4px; }
.three { display: flex; gap: 22px; margin-bottom: 8px; }
.three > div { flex: 1 1 0; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { font-weight: 400; color: #777; text-align: right; padding-left: 8px; }
th:first-child { text-align: left; padding: 0; }
td { padding: 2px 0; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
td + td { text-align: right; white-space: nowrap; padding-left: 8px; font-variant-numeric: tabular-nums; }
.three > .quality { flex: 1.7 1 0; }
.quality td + td + td { color: #777; font-size: 12px; }
.quality .mild td { background: #fff6da; } .quality .grave td { background: #fde8e4; font-weight: 600; }
.how { font-size: 13px; border-top: 1px solid #999; padding-top: 6px; }
.watched { display: flex; gap: 22px; margin-bottom: 8px; font-size: 13px; }
.watched > div { flex: 1 1 0; } .watched p { margin: 0 0 4px; }
.small, footer { font-size: 11px; color: #555; overflow-wrap: anywhere; }
footer { border-top: 1px solid #999; padding-top: 4px; }
@media (max-width: 640px) { .top, .pair, .three, .watched { flex-direction: column; align-items: stretch; } }
@media print { body { padding: 0; font-size: 11px; line-height: 1.32; max-width: none; }
  .small, footer { font-size: 8.5px; } h1 { font-size: 18px; } h2 { font-size: 12px; }
  .warnings li { padding: 4px 10px; margin-bottom: 3px; } .warnings .grave { font-size: 12.5px; }
  .number { flex-basis: 250px; } .number .big { font-size: 48px; } .number .interval { font-size: 21px; }
  .quality td + td + td { font-size: 9px; } .three td { padding-top: 1px; padding-bottom: 1px; }
  table, .how, .number.doubtful .big:not(.none), .number.doubtful .interval, .number.doubtful .corrected b,
.number .few b { color: #999; }
.number .corrected { font-size: 10.5px; } figcaption { font-size: 10px; }
  .watched, .watched table { font-size: 9.5px; margin-bottom: 3px; } .watched p { margin-bottom: 2px; }
  .watched td { padding: 0; } .pair svg { max-height: 118px; }
  section, figure, table { break-inside: avoid; } }
"""
