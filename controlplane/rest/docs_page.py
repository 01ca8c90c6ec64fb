"""`/docs`: the OpenAPI document to read and to try, served without anything from elsewhere."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException

FILES = {
    "swagger-ui-bundle.js": "application/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}

router = APIRouter(tags=["docs"], include_in_schema=False)


@router.get("/docs")
async def show_docs() -> Response:
    # Addresses without a host: the page is reached through the gateway and through ingresses.
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Hearth control plane",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon-32x32.png",
        swagger_ui_parameters={"filter": True, "persistAuthorization": True, "docExpansion": "none"},
    )


@router.get("/docs/{file}")
def get_docs_file(file: str) -> Response:
    if file not in FILES:
        raise HTTPException(404)
    content = resources.files("fastapi_swagger.resources").joinpath(file).read_bytes()
    return Response(content, media_type=FILES[file], headers={"Cache-Control": "max-age=86400"})
