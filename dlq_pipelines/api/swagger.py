"""Serves Swagger UI, which describes the API and sends requests to it, at `/docs`.

All of its files come from this server, so the page also works without internet access.
"""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

_OWN_FILES = Path(__file__).parent / "static"
_SWAGGER_UI = Path(str(files("fastapi_swagger.resources")))

# The paths of `/docs` and their files. No route serves the other files of these two folders.
DOCS_FILES = {
    "/docs": _OWN_FILES / "docs.html",
    "/docs/docs.js": _OWN_FILES / "docs.js",
    "/docs/docs.css": _OWN_FILES / "docs.css",
    "/docs/swagger-ui-bundle.js": _SWAGGER_UI / "swagger-ui-bundle.js",
    "/docs/swagger-ui.css": _SWAGGER_UI / "swagger-ui.css",
    "/docs/favicon-32x32.png": _SWAGGER_UI / "favicon-32x32.png",
}
# connect-src is for /openapi.json and the requests of "Try it out". img-src has data: because the
# stylesheet of Swagger UI embeds its icons as data URIs.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


def _make_handler(file: Path) -> Callable[[], FileResponse]:
    def send_file() -> FileResponse:
        return FileResponse(file, headers={"Content-Security-Policy": DOCS_POLICY})

    return send_file


for _path, _file in DOCS_FILES.items():
    router.add_api_route(_path, _make_handler(_file))
