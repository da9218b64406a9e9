"""Pairs of duplicates side by side on one HTML page that needs nothing else."""
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from pages.page_style import HEAD
from pages.report_figures import photo
from preprocess.dedup.pairs import Duplicates
from preprocess.dedup.report import pair_rows
from preprocess.images.decode import Rejected
from preprocess.images.normalize import normalize
from preprocess.sources import PhotoSource

PAIRS = 50
THUMBNAIL = 160  # pixels

TEMPLATE = HEAD + """<title>Duplicates – arcshard</title>
<style>
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1.25rem 4rem; color: #1f2328; background: #fff;
       font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 1rem; font-size: 1.75rem; }
.found { white-space: pre-wrap; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(21.5rem, 1fr)); gap: 1rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; align-content: start; gap: .5rem; padding: .75rem;
        border: 1px solid #d8dee4; border-radius: .5rem; }
.pair h2 { grid-column: 1 / -1; margin: 0; font-size: .9375rem; }
.other { color: #b3261e; }
figure { margin: 0; min-width: 0; }
img { display: block; max-width: 100%; }
figcaption { font-size: .8125rem; line-height: 1.35; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>Duplicates</h1>
<p class="found">{{ lines }}</p>
<p>{{ "{:,}".format(pairs | length) }} of {{ "{:,}".format(total) }} pairs, those that differ most first: judge by
them whether the distance is right.</p>
<div class="pairs">
{% for pair in pairs %}
<section class="pair">
<h2>{{ pair.kind if pair.kind == "exact" else "near, %d of 64 bits differ" % pair.distance }}
<span class="other">{{ "· different landmarks" if pair.landmark_a != pair.landmark_b }}</span></h2>
{% for side in "ab" %}
<figure>{% if pair["uri_" + side] %}<img src="{{ pair["uri_" + side] }}" alt="Photo {{ pair["id_" + side] }}">
{% else %}<p>photo cannot be read</p>{% endif %}
<figcaption><b>{{ pair["split_" + side] }}</b> {{ pair["id_" + side] }}<br>
{{ pair["landmark_" + side] or "no landmark" }}</figcaption></figure>
{% endfor %}
</section>
{% endfor %}
</div>
</body>
</html>
"""


def render(samples: pd.DataFrame, duplicates: Duplicates, lines: list[str], source: PhotoSource) -> str:
    """The page: `lines` of text, then at most PAIRS pairs, the most distant first.

    samples: the table that the pairs' rows refer to. The same photos give the same bytes.
    """
    farthest = np.concatenate([found.pairs[-PAIRS:] for found in duplicates.values()])
    farthest = farthest[np.argsort(-farthest["distance"].astype(int), kind="stable")][:PAIRS]
    pairs: list[dict[str, Any]] = pair_rows(samples, farthest).to_dict("records")  # type: ignore[assignment]
    for side in "ab":
        for pair, uri in zip(pairs, _thumbnails(samples.iloc[farthest[side]], source)):
            pair[f"uri_{side}"] = uri
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    return environment.from_string(TEMPLATE).render(
        lines="\n".join(lines), pairs=pairs, total=sum(len(found.pairs) for found in duplicates.values()))


def _thumbnails(photos: pd.DataFrame, source: PhotoSource) -> list[str]:
    """A data URI of each photo, "" for one that is gone."""
    paths = photos["path"].tolist() if "path" in photos else None
    uris = []
    for location in source.locate(photos["id"].tolist(), paths):
        try:
            uris.append(photo(normalize(location.read(), THUMBNAIL, quality=90).data, THUMBNAIL))
        except Rejected:
            uris.append("")
    return uris
