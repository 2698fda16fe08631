"""``/docs``: the API's document as a page (Swagger UI). Everything it loads comes from here, nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, HTMLResponse

router = APIRouter(prefix="/docs", include_in_schema=False)

# The bundle draws its icons from data: URLs and needs no eval; nothing of it is inline.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>opd: HTTP API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/page.js"></script>
</body>
</html>
"""
_SCRIPT = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
_CACHED = {"Cache-Control": "public, max-age=3600"}


@router.get("")
def page() -> HTMLResponse:
    """The page itself."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/page.js")
def script() -> Response:
    """What starts it."""
    return Response(_SCRIPT, headers=_CACHED, media_type="text/javascript")


@router.get("/swagger-ui-bundle.js")
def bundle() -> FileResponse:
    """Swagger UI, from the package that carries it."""
    return _asset("swagger-ui-bundle.js", "text/javascript")


@router.get("/swagger-ui.css")
def style() -> FileResponse:
    """Its style."""
    return _asset("swagger-ui.css", "text/css")


def _asset(name: str, media_type: str) -> FileResponse:
    return FileResponse(str(files("fastapi_offline") / "static" / name), headers=_CACHED, media_type=media_type)
