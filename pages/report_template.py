"""The report's page: Jinja2 over what arcshard.report_page hands in. System fonts, no script, no request."""

from pages.page_style import BASE, HEAD

STYLE = BASE + """
.scores { margin-top: 1.5rem; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.scores th, .scores td { padding: .35rem 1.25rem .35rem 0; border-bottom: 1px solid var(--line);
                         text-align: left; }
.scores tbody th { font-weight: 400; }
.scores .number { padding-left: .5rem; text-align: right; }
.scores thead th { color: var(--quiet); font-size: .875rem; font-weight: 500; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr));
          gap: 1.5rem; }
.charts figcaption { margin-bottom: .25rem; font-size: .9375rem; font-weight: 600; }
.views { display: grid; grid-template-columns: repeat(8, 1fr); gap: .375rem; }
.bar { display: flex; height: 1.25rem; overflow: hidden; border-radius: .25rem;
       background: var(--computing); }
.bar span { background: var(--waiting); border-right: 2px solid var(--paper); }
.key { display: inline-block; width: .75rem; height: .75rem; border-radius: .125rem; }
.query { display: grid; grid-template-columns: repeat(6, 1fr); gap: .625rem; padding: .75rem 0;
         border-bottom: 1px solid var(--line); }
.query img { height: auto; aspect-ratio: 4 / 3; object-fit: contain; background: var(--frame); }
.query .asked img { outline: 3px solid var(--ink); outline-offset: -3px; }
.query .right img { border-bottom: 5px solid var(--right); }
.query .wrong img { border-bottom: 5px dashed var(--wrong); }
.query figcaption { padding-top: .25rem; font-variant-numeric: tabular-nums; }
.right b { color: var(--right); }
.wrong b { color: var(--wrong); }
@media (max-width: 700px) {
  .query { grid-template-columns: repeat(3, 1fr); }
  .views { grid-template-columns: repeat(4, 1fr); }
  .scores { width: 100%; font-size: .875rem; }
  .scores th, .scores td { padding-right: .375rem; }
}
"""

TEMPLATE = HEAD + """<title>Run {{ data.run }} – arcshard</title>
<style>""" + STYLE + """</style>
</head>
<body>
<h1>Run {{ data.run }}</h1>

<dl class="tiles">
{% for name, value in tiles %}
<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
<table class="scores">
<thead><tr><th scope="col">split</th><th scope="col">metric</th><th scope="col" class="number">untrained</th>
<th scope="col" class="number">trained</th><th scope="col" class="number">change</th></tr></thead>
<tbody>
{% for split, metric, untrained, trained, change in rows %}
<tr><td>{{ split }}</td><th scope="row">{{ metric }}</th><td class="number">{{ untrained }}</td>
<td class="number">{{ trained }}</td><td class="number">{{ change }}</td></tr>
{% endfor %}
</tbody>
</table>
<p class="quiet">Untrained: the same backbone with the weights it began with, without neck. Recall@1 is the
share of queries with a landmark whose nearest photo shows it. GAP ranks the answers to all queries by
confidence and averages the precision at each right one, so that a confident answer to a photo without
landmark costs. mAP@100 does so with each query's 100 nearest photos. All lie between 0 and 1.</p>

{% macro charts(list) %}
<div class="charts">
{% for caption, uri in list %}
<figure><figcaption>{{ caption }}</figcaption>
<img src="{{ uri }}" alt="Chart over images seen: {{ caption }}"></figure>
{% endfor %}
</div>
{% endmacro %}

<h2>Learning</h2>
{{ charts(learning) }}

<h2>Where the time went</h2>
{% if wait is not none %}
<div class="bar" role="img" aria-label="{{ '%.1f' % (100 * wait) }} % of the time waiting for data">
<span style="width: {{ '%.2f' % (100 * wait) }}%"></span></div>
<p><i class="key" style="background: var(--waiting)"></i> waiting for data {{ '%.1f' % (100 * wait) }} %&emsp;
<i class="key" style="background: var(--computing)"></i> computing {{ '%.1f' % (100 - 100 * wait) }} %</p>
{% endif %}
{{ charts(speed) }}

{% if cosines is not none %}
<h2>How far apart right and wrong are</h2>
<div class="charts">
<figure><img src="{{ cosines }}" alt="Histograms of cosines to nearest neighbors"></figure>
<p class="quiet">Cosines of the {{ data.split }} split's queries to their nearest photo of their own landmark, to
that of another landmark, and of queries without landmark to the nearest of all. The further right the first lies of
the other two, the better a threshold on the cosine tells right answers from wrong ones.</p>
</div>
{% endif %}

<h2>Training images as the model sees them</h2>
<div class="views">
{% for pixels in data.views %}
<img src="{{ view(pixels) }}" alt="Augmented training image {{ loop.index }} of {{ data.views | length }}">
{% endfor %}
</div>

<h2>Queries and their nearest neighbors</h2>
<p>Queries of the {{ data.split }} split stand first, framed; then their neighbors in the train
split, nearest first, each with its cosine.
<span class="right"><b>✓ right</b></span>: shows the query's landmark.
<span class="wrong"><b>✗ wrong</b></span>: shows another or none, or the query has none.</p>
{% for heading, queries in data.queries.items() %}
<h3>{{ heading }}</h3>
{% for query in queries %}
<div class="query">
<figure class="asked"><img src="{{ photo(query.photo) }}" alt="Query {{ query.key }}">
<figcaption><b>query</b><br>{{ query.landmark or "no landmark" }}</figcaption></figure>
{% for found in query.neighbors %}
{% set right = found.landmark != "" and found.landmark == query.landmark %}
<figure class="{{ 'right' if right else 'wrong' }}"><img src="{{ photo(found.photo) }}"
alt="Neighbor {{ loop.index }}, {{ 'right' if right else 'wrong' }}: {{ found.landmark or 'no landmark' }}">
<figcaption><b>{{ "✓ right" if right else "✗ wrong" }}</b> {{ "%.3f" % found.cosine }}<br>
{{ found.landmark or "no landmark" }}</figcaption></figure>
{% endfor %}
</div>
{% endfor %}
{% endfor %}
</body>
</html>
"""
