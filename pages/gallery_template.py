"""The gallery page: Jinja2 over what retrieval.gallery_page hands in, in the report's dress. No script, no request."""
from pages.page_style import HEAD
from pages.report_template import STYLE

GALLERY = """
.wide { overflow-x: auto; }
.wide tbody th { min-width: 6rem; overflow-wrap: anywhere; }
.filters { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0;
           padding: .5rem 0; border: 0; background: var(--paper); }
.filters legend { padding: 0 0 .25rem; color: var(--quiet); font-size: .875rem; }
.filters label { position: relative; padding: .25rem .75rem; border: 1px solid var(--line); border-radius: 1rem;
                 cursor: pointer; }
.filters label:has(:checked) { border-color: var(--computing); background: var(--computing); color: var(--paper); }
.filters label:has(:focus-visible) { outline: 3px solid var(--waiting); outline-offset: 2px; }
.filters input { position: absolute; opacity: 0; }
body:has(#only-changed:checked) article:not(.changed), body:has(#only-missed:checked) article:not(.missed),
body:has(#only-none:checked) article:not(.none),
body:has(#only-changed:checked) section:not(:has(.changed)), body:has(#only-missed:checked) section:not(:has(.missed)),
body:has(#only-none:checked) section:not(:has(.none)) { display: none; }
article { display: grid; grid-template-columns: 12rem 1fr; gap: 1.25rem; padding: 1.25rem 0;
          border-bottom: 1px solid var(--line); }
article h4 { margin: .5rem 0 0; font-size: 1rem; overflow-wrap: anywhere; }
article p { margin: .25rem 0 0; font-size: .875rem; overflow-wrap: anywhere; }
article .asked { position: sticky; top: 4rem; align-self: start; }
article img, .pair img { height: auto; aspect-ratio: 4 / 3; object-fit: contain; background: var(--frame); }
.asked img { outline: 3px solid var(--ink); outline-offset: -3px; }
.steps { min-width: 0; margin: 0; padding: 0; list-style: none; font-variant-numeric: tabular-nums; }
.steps > li { padding: 0 0 1rem 1rem; border-left: 3px solid var(--line); }
.steps > li.moved { border-color: var(--computing); }
.steps h5 { display: inline; margin: 0; font-size: .9375rem; }
.found { display: grid; grid-template-columns: repeat(5, 1fr); gap: .625rem; margin: .5rem 0; padding: 0;
         list-style: none; }
.found .right img { border-bottom: 5px solid var(--right); }
.found .wrong img { border-bottom: 5px dashed var(--wrong); }
.answers { margin: .25rem 0; padding-left: 1.5rem; font-size: .875rem; }
.right > b { color: var(--right); }
.wrong > b { color: var(--wrong); }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1.25rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .375rem .625rem; }
.pair > p { grid-column: 1 / -1; margin: 0; }
@media (max-width: 700px) {
  article { grid-template-columns: 1fr; }
  article .asked { position: static; display: grid; grid-template-columns: 8rem 1fr; gap: .75rem; }
  .found { grid-template-columns: repeat(3, 1fr); }
  .wide .scores { font-size: .75rem; }
  .wide .scores thead th { font-size: .75rem; }
  .wide .scores .number { padding-left: .25rem; }
}
"""

TEMPLATE = HEAD + """<title>Answers of {{ data.who }} – arcshard</title>
<style>""" + STYLE + GALLERY + """</style>
</head>
<body>
<h1>Answers of {{ data.who }}, split {{ data.split }}</h1>

<h2>What each step did</h2>
<div class="wide" tabindex="0" role="region" aria-label="What each step did">
<table class="scores">
<thead><tr><th scope="col">step</th><th scope="col" class="number">GAP</th><th scope="col" class="number">change</th>
<th scope="col" class="number">other answers</th><th scope="col" class="number">became right</th>
<th scope="col" class="number">became wrong</th></tr></thead>
<tbody>
{% for row in data.figures %}
{% set start = loop.first %}
<tr><th scope="row">{{ row.step }}</th><td class="number">{{ "%.4f" % row.gap }}</td>
{% for change in (row.gain | signed, row.changed, row.mended, row.spoiled) %}
<td class="number">{{ "–" if start else change }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="quiet">All {{ "{:,}".format(data.num_queries) }} queries of the split. Each row ends the list of steps there:
what comes before the search is seen by the neighbors that it would find, what comes before the vote by their
landmarks, nearest first. A step that changes no answer can still gain, by moving wrong ones behind right ones.</p>

<h2>Queries</h2>
<p>{{ num_shown }} of {{ "{:,}".format(data.num_queries) }} queries are shown, each with its way to the answer. Place:
where the answer stands among those to all queries, by score.
<span class="right"><b>✓ right</b></span>: shows the query's landmark.
<span class="wrong"><b>✗ wrong</b></span>: shows another or none, or the query has none.</p>
<fieldset class="filters"><legend>Show</legend>
{% for id, kind, number in (("all", "all", num_shown), ("changed", "answer changed", counts.changed),
("missed", "landmark, answered wrongly", counts.missed), ("none", "without landmark", counts.none)) %}
<label><input type="radio" name="only" id="only-{{ id }}"{{ " checked" if id == "all" }}>
{{ kind }} ({{ number }})</label>
{% endfor %}
</fieldset>

{% macro mark(right) %}
<b>{{ "✓ right" if right else "✗ wrong" }}</b>
{%- endmacro %}
{% macro move(was, now) %}
{{ was or "none" }}{% if was != now %} → {{ now or "none" }}{% endif %}
{%- endmacro %}
{% macro neighbor(found, place, first) %}
<li class="{{ 'right' if found.right else 'wrong' }}"><img src="{{ photo(found.photo) }}"
alt="Neighbor {{ place }}, {{ 'right' if found.right else 'wrong' }}: {{ found.landmark or 'no landmark' }}">
<figure><figcaption>{{ mark(found.right) }} {{ found.score | score }}
{%- if found.inliers is not none %}, {{ found.inliers }} inliers{% endif %}<br>
{{ found.landmark or "no landmark" }}<br><span class="quiet">{{ found.key }}</span>
{% if not first and found.was != place %}<br>{{ "was %d, now %d" % (found.was, place) if found.was else "new" }}
{% endif %}</figcaption></figure></li>
{% endmacro %}
{% for heading, queries in data.queries.items() %}
<section>
<h3>{{ heading }}</h3>
{% for query in queries %}
<article class="{{ query.kinds | join(' ') }}">
<div class="asked"><img src="{{ photo(query.photo) }}" alt="Query {{ query.key }}">
<div><h4>{{ query.landmark or "no landmark" }}</h4>
<p class="quiet">{{ query.key }}</p>
<p class="{{ 'right' if query.right else 'wrong' }}">
{%- if query.answer %}{{ mark(query.right) }}: {{ query.answer }}{% else %}no answer{% endif %}</p></div></div>
<ol class="steps">
{% for step in query.steps %}
{% set before = step if loop.first else loop.previtem %}
{% set first = loop.first %}
{% if step.lists or step.candidates %}
<li class="moved"><h5>{{ step.name }}</h5>
<p class="quiet">{% if query.landmark %}right landmark: candidate {{ move(before.rank, step.rank) }}; {% endif %}
answer: place {{ move(before.place, step.place) }} of {{ "{:,}".format(data.num_queries) }}</p>
{% for list in step.lists %}
{% if step.lists | length > 1 %}<p>Run {{ loop.index }}</p>{% endif %}
<ol class="found">
{% for found in list %}
{{ neighbor(found, loop.index, first) }}
{%- endfor %}
</ol>
{% endfor %}
{% if step.candidates %}
<ol class="answers">
{% for candidate in step.candidates %}
<li class="{{ 'right' if candidate.right else 'wrong' }}">{{ mark(candidate.right) }}
{{ candidate.landmark or "no landmark" }}:
{% if candidate.was_score is not none %}{{ candidate.was_score | score }} → {% endif %}{{ candidate.score | score }}
{%- if not first and candidate.was != loop.index %}
, {{ "was candidate %d" % candidate.was if candidate.was else "new" }}{% endif %}</li>
{% endfor %}
</ol>
{% endif %}
</li>
{% else %}
<li><h5>{{ step.name }}</h5> <span class="quiet">changes nothing here</span></li>
{% endif %}
{% endfor %}
</ol>
</article>
{% endfor %}
</section>
{% endfor %}

<h2>Landmarks taken for another</h2>
{% if data.confused %}
<p>{{ data.confused | length }} of {{ "{:,}".format(data.num_confused) }} pairs, the most frequent first. Left: a query.
Right: a photo of the landmark that it was answered with.</p>
<div class="pairs">
{% for pair in data.confused %}
<div class="pair"><p><b>{{ pair.count }} ×</b></p>
<figure><img src="{{ photo(pair.query) }}" alt="Query that shows {{ pair.shown }}">
<figcaption>shows {{ pair.shown }}</figcaption></figure>
<figure>{% if pair.other is not none %}<img src="{{ photo(pair.other) }}" alt="Photo of {{ pair.answered }}">
{% endif %}
<figcaption>answered {{ pair.answered }}</figcaption></figure></div>
{% endfor %}
</div>
{% else %}
<p>None: every query with a landmark that was answered was answered rightly.</p>
{% endif %}
</body>
</html>
"""
