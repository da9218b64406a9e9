"""Draw the picture of README: three queries of the demo, their nearest photos in the gallery, and the answers.

python docs/picture.py --run runs/demo --data data/demo/dataset --out docs/demo.jpg

The photos are views of pictures in mvtb-data (MIT license) and scikit-learn (china.jpg and flower.jpg: CC BY 2.0,
danielbuechele and vultilion), rendered by preprocess/demo_data.py.
"""
import argparse
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from arcshard.console import Parser, run
from arcshard.files import whole_file
from pages.report import ShownQuery
from report import collect

HEADINGS = {"Right, and least confident": 1, "Drawn at random": 1, "Without landmark, and most confident": 1}
SIDE, GAP, LEFT = 132, 8, 40  # pixels: of a photo, between photos, between the query and its neighbors
TEXT = 40  # pixels below a photo
INK, RIGHT, WRONG, PAPER = "#24292f", "#1a7f37", "#cf222e", "#ffffff"


def main() -> None:
    args = parse_args()
    shown = collect(args.run, args.data).queries
    queries = [query for heading, count in HEADINGS.items() for query in shown.get(heading, [])[:count]]
    with whole_file(args.out) as f:
        draw(queries).save(f, "JPEG", quality=85)
    print(args.out)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--data", type=Path, required=True, help="its dataset's folder")
    parser.add_argument("--out", type=Path, required=True, help="the picture, a JPEG")
    return parser.parse_args()


def draw(queries: list[ShownQuery]) -> Image.Image:
    """A row for each query: its photo, then its neighbors, nearest first, with what they show and their cosine."""
    across = 1 + max(len(query.neighbors) for query in queries)
    picture = Image.new("RGB", (across * (SIDE + GAP) + LEFT, len(queries) * (SIDE + TEXT)), PAPER)
    for row, query in enumerate(queries):
        y = row * (SIDE + TEXT)
        place(picture, query.photo, 0, y, f"landmark {query.landmark}" if query.landmark else "no landmark", INK)
        for column, found in enumerate(query.neighbors, 1):
            right = found.landmark == query.landmark
            place(picture, found.photo, LEFT + column * (SIDE + GAP), y,
                  f"{'right' if right else 'wrong'}, {found.cosine:.2f}", RIGHT if right else WRONG)
    return picture


def place(picture: Image.Image, photo: bytes, x: int, y: int, text: str, color: str) -> None:
    picture.paste(ImageOps.fit(Image.open(io.BytesIO(photo)).convert("RGB"), (SIDE, SIDE)), (x, y))
    ink = ImageDraw.Draw(picture)
    ink.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline=color, width=3)
    ink.text((x, y + SIDE + 4), text, fill=color, font=ImageFont.load_default(15))


if __name__ == "__main__":
    run(main)
