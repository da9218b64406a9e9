"""The info page: Jinja2 over what shards.info_page hands in, in the report's dress. No script, no request."""
from pages.page_style import HEAD
from pages.report_template import STYLE

SHEET = """
.scores { margin: 1rem 0 1.5rem; }
.scores .number { min-width: 6rem; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 1rem .75rem; }
.sheet img { height: auto; aspect-ratio: 4 / 3; object-fit: contain; background: var(--frame); }
.sheet figcaption { padding-top: .25rem; }
code { overflow-wrap: anywhere; font: .75rem/1.35 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
"""

TEMPLATE = HEAD + """<title>Dataset {{ name }} – arcshard</title>
<style>""" + STYLE + SHEET + """</style>
</head>
<body>
<h1>Dataset {{ name }}</h1>
<dl class="tiles">
{% for what, value in tiles %}
<div><dt>{{ what }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>

{% for section in sections %}
<h2>Split {{ section.split }}</h2>
<p>{{ section.summary }}</p>
<table class="scores">
<thead><tr><th></th><th scope="col" class="number">least</th><th scope="col" class="number">median</th>
<th scope="col" class="number">most</th></tr></thead>
<tbody>
{% for what, least, median, most in section.spreads %}
<tr><th scope="row">{{ what }}</th><td class="number">{{ least }}</td><td class="number">{{ median }}</td>
<td class="number">{{ most }}</td></tr>
{% endfor %}
</tbody>
</table>
<div class="charts">
{% for caption, uri in section.charts %}
<figure><figcaption>{{ caption }}</figcaption>
<img src="{{ uri }}" alt="Chart of split {{ section.split }}: {{ caption }}"></figure>
{% endfor %}
</div>
<h3>{{ section.photos | length }} photos evenly drawn, with key and landmark id</h3>
<div class="sheet">
{% for shown in section.photos %}
<figure><img src="{{ shown.uri }}" alt="Photo {{ shown.key }}">
<figcaption><code>{{ shown.key }}</code><br>{{ shown.landmark or "no landmark" }}</figcaption></figure>
{% endfor %}
</div>
{% endfor %}

<h2>How it was packed</h2>
<table class="scores">
<tbody>
<tr><th scope="row">format version</th><td>{{ version }}</td></tr>
{% for option, value in packing.items() %}
<tr><th scope="row">{{ option }}</th><td><code>{{ value }}</code></td></tr>
{% endfor %}
</tbody>
</table>
</body>
</html>
"""
