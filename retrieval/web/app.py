"""The app's URLs: a page, its answers, its photos. No upload outlives its request.

GET  /                    the page
GET  /gallery/ROW.jpg     a gallery photo
POST /answer              an image file as the body: its answer, JSON as retrieval.answers.Answer
POST /match/ROW           an image file as the body: a JPEG of its inliers with that gallery photo; header Inliers

A wrong request is answered with {"error": a sentence} and a status of 4xx, a full disk with 507.
"""
from dataclasses import asdict
from threading import Lock
from typing import Any

from flask import Flask, Response, abort, request
from werkzeug.exceptions import HTTPException

from arcshard.files import DiskFull
from retrieval.web.answerer import Answerer, Unreadable

# The page may load what this server gives, and show the photo that was dropped on it (blob:); nothing else.
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


def create_app(answerer: Answerer, max_bytes: int, hosts: list[str] | None = None) -> Flask:
    """The app over `answerer`, which gets one upload at a time: a large photo takes 0.3 GB.

    max_bytes: of an upload. hosts: host names that requests may use, so that no page elsewhere reaches the app by a
    name of its own (DNS rebinding); None: any.
    """
    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=max_bytes, TRUSTED_HOSTS=hosts)
    alone = Lock()

    @app.before_request
    def refuse_other_sites() -> None:
        request.host  # raises if it is not one of TRUSTED_HOSTS
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            abort(403, "only this server's own page may send it requests")

    @app.get("/")
    def page() -> Response:
        return app.send_static_file("index.html")

    @app.get("/about")
    def about() -> dict[str, Any]:
        return {"title": answerer.title, "max_bytes": max_bytes}

    @app.get("/gallery/<int:row>.jpg")
    def gallery(row: int) -> Response:
        return Response(answerer.gallery_photo(row), mimetype="image/jpeg")

    @app.post("/answer")
    def answer() -> dict[str, Any]:
        photo = uploaded()
        with alone:
            return asdict(answerer.answer(photo))

    @app.post("/match/<int:row>")
    def match(row: int) -> Response:
        photo = uploaded()
        with alone:
            found = answerer.match(photo, row)
        return Response(found.picture, mimetype="image/jpeg", headers={"Inliers": str(found.inliers)})

    def uploaded() -> bytes:
        # the body as it is: a form's files would be written to disk
        photo = request.get_data(cache=False)
        if not photo:
            abort(400, "the request's body is empty: send an image file")
        return photo

    @app.errorhandler(Unreadable)
    def unreadable(error: Unreadable) -> tuple[dict[str, str], int]:
        return {"error": f"this is no photo that can be read: {error}"}, 415

    @app.errorhandler(IndexError)
    def no_row(_: IndexError) -> tuple[dict[str, str], int]:
        return {"error": "the gallery has no photo of this number"}, 404

    @app.errorhandler(DiskFull)
    def disk_full(_: DiskFull) -> tuple[dict[str, str], int]:
        return {"error": "the server has no disk space left to work on the photo"}, 507

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> tuple[dict[str, str], int]:
        said = f"a photo may have at most {max_bytes:,} bytes" if error.code == 413 else error.description
        return {"error": said or error.name}, error.code or 500

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers.update({"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff",
                                 "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"})
        return response

    return app
