"""What was done to how many elements, for the officer who reviews a site's data: JSON, or a page."""

from collections import defaultdict

import jinja2
import orjson

from sidecar.deid import Mode, Tally

WHAT = ("kept", "replaced", "generalised", "dropped")
LIMITS = (
    "Counts by element path. Names of elements that R4 does not have are payload and are counted as ?. No value of the "
    "input is in this report. It shows what rules did to this input; it is no legal determination."
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>De-identification report</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #ddd }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
</style></head><body>
<h1>De-identification report</h1>
<p>Mode <strong>{{ report.mode }}</strong>, rules <code>{{ report.rules }}</code>. {{ limits }}</p>
<h2>Resources</h2>
<table><tr><th>type</th><th class="n">passed</th></tr>
{% for type, n in report.resources.items() %}<tr><td>{{ type }}</td><td class="n">{{ n }}</td></tr>{% endfor %}</table>
{% if report.refused %}<h2>Refused</h2>
<table><tr><th>reason</th><th class="n">times</th></tr>
{% for why, n in report.refused.items() %}<tr><td>{{ why }}</td><td class="n">{{ n }}</td></tr>{% endfor %}</table>
{% endif %}{% if report.unreadable %}<p>{{ report.unreadable }} documents could not be read.</p>{% endif %}
<h2>Elements</h2>
<table><tr><th>element</th>{% for w in what %}<th class="n">{{ w }}</th>{% endfor %}</tr>
{% for path, done in report.elements.items() %}<tr><td>{{ path }}</td>
{% for w in what %}<td class="n">{{ done.get(w, "") }}</td>{% endfor %}</tr>{% endfor %}</table>
</body></html>
"""


def _report(tally: Tally, mode: Mode, digest: str, unreadable: int) -> dict[str, object]:
    elements: dict[str, dict[str, int]] = defaultdict(dict)
    for (path, what), times in sorted(tally.counts.items()):
        elements[path][what] = times
    return {
        "mode": mode.value,
        "rules": digest,
        "resources": dict(sorted(tally.resources.items())),
        "refused": dict(tally.refused.most_common()),
        "unreadable": unreadable,
        "elements": elements,
    }


def as_json(tally: Tally, mode: Mode, digest: str, unreadable: int) -> str:
    """The report as JSON."""
    written = _report(tally, mode, digest, unreadable) | {"limits": LIMITS}
    return orjson.dumps(written, option=orjson.OPT_INDENT_2).decode() + "\n"


def as_html(tally: Tally, mode: Mode, digest: str, unreadable: int) -> str:
    """The report as a page of its own."""
    environment = jinja2.Environment(autoescape=True)
    page = environment.from_string(_PAGE)
    return page.render(report=_report(tally, mode, digest, unreadable), limits=LIMITS, what=WHAT) + "\n"
