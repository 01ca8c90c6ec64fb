from __future__ import annotations

from typing import Annotated

from fastapi import Body, Depends, Query, Response
from sqlalchemy import select

from controlplane.auth import Caller
from controlplane.context import ContextDep, may
from controlplane.errors import field_violations, unimplemented
from controlplane.names import ResourceName
from controlplane.queue import RECONCILE_MODEL
from controlplane.resources.deployed_models.service import deployed_model_refs
from controlplane.resources.models import service
from controlplane.resources.models.listing import LISTING, LISTING_FOR_OTHERS, NOT_SHOWN
from controlplane.resources.models.schemas import (
    CreateModelRequest,
    Model,
    PrepareModelRequest,
    ValidateModelConfigRequest,
    ValidateUploadResponse,
)
from controlplane.resources.models.tables import ModelRow
from controlplane.resources.models.text_checks import check_model_config
from controlplane.resources.resumable import upload_endpoint
from controlplane.resources.uploads import (
    INCOMING,
    READY,
    GetDownloadEndpointResponse,
    GetUploadEndpointRequest,
    GetUploadEndpointResponse,
    ask_for_check,
    downloads,
    refuse_if_invalid,
    register_files,
    wait_for_verdict,
)
from controlplane.rest.access import find
from controlplane.rest.paging import PageRequest, fetch_page, page_request
from controlplane.rest.responses import reply, reply_page
from controlplane.rest.router import collection_router, error_responses, list_of
from controlplane.rest.schema import Empty

router = collection_router("models", "/v1/accounts/{account_id:rid}/models")
configs = collection_router("models")

NO_IMPORT = "models are not fetched from other stores; upload the files through getUploadEndpoint"
NO_VERSIONS = "models have no versions; upload another checkpoint as a model of its own, and deploy that"


@router.post("", response_model=Model, summary="Create a model; upload its files next")
async def create_model(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.create")],
    account_id: str,
    body: Annotated[CreateModelRequest, Body()],
) -> Response:
    async with ctx.work(caller) as work:
        row = await service.create_model(work.session, caller, body)
        (message,) = await service.shown_to(work.session, account_id, [row])
    return reply(message)


@router.get(
    "", response_model=list_of(Model, "models"), summary="List models; of another account, its public ones"
)
async def list_models(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view", other_accounts=True)],
    account_id: str,
    page: Annotated[PageRequest, Depends(page_request)],
) -> Response:
    query = select(ModelRow).where(ModelRow.account_id == account_id).options(*NOT_SHOWN)
    own = account_id == caller.account_id
    if not own:
        query = query.where(ModelRow.public, ModelRow.state == READY)
    async with ctx.db.session() as session:
        found = await fetch_page(session, query, LISTING if own else LISTING_FOR_OTHERS, page)
        messages = await service.shown_to(session, caller.account_id, found.rows)
    return reply_page("models", messages, found, page.read_mask)


@router.get("/{model_id:rid}", response_model=Model, summary="Get a model")
async def get_model(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view", other_accounts=True)],
    account_id: str,
    model_id: str,
    readMask: str = "",
) -> Response:
    async with ctx.db.session() as session:
        row = await service.find_readable(session, caller, ResourceName(account_id, "models", model_id))
        (message,) = await service.shown_to(session, caller.account_id, [row])
        message.deployed_model_refs = await deployed_model_refs(session, row.uid, caller.account_id)
    return reply(message, readMask)


@router.patch("/{model_id:rid}", response_model=Model, summary="Update a model's metadata")
async def update_model(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    model_id: str,
    body: Annotated[Model, Body()],
    updateMask: str = "",
) -> Response:
    async with ctx.work(caller) as work:
        name = ResourceName(account_id, "models", model_id)
        message = await service.update_model(work.session, name, body, updateMask)
    return reply(message)


@router.delete("/{model_id:rid}", response_model=Empty, summary="Delete a model and its files")
async def delete_model(
    ctx: ContextDep, caller: Annotated[Caller, may("resources.change")], account_id: str, model_id: str
) -> Response:
    """Refused while anything stands on it: deployments, deployed models, addons, running jobs."""
    async with ctx.work(caller) as work:
        await service.delete_model(work.session, ResourceName(account_id, "models", model_id))
    return reply(Empty())


@router.post(
    "/{model_id:rid}:getUploadEndpoint",
    response_model=GetUploadEndpointResponse,
    summary="Register the model's files and get a signed URL to PUT each to",
)
async def get_upload_endpoint(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    model_id: str,
    body: Annotated[GetUploadEndpointRequest, Body()],
) -> Response:
    """With `enableResumableUpload` files above 8 MiB are sent in parts.

    `filenameToParts` has an address for each part that is missing, a hundred at a time. The same call, made
    again, tells what has arrived and where the rest goes: after a lost connection, or in another process.
    `:validateUpload` puts the parts together. Unfinished uploads are kept for `HEARTH_UPLOAD_DAYS`.
    """
    async with ctx.work(caller) as work:
        row = await find(work.session, ModelRow, ResourceName(account_id, "models", model_id), lock=True)
        dropped = register_files(row, body)
    answer = await upload_endpoint(ctx, row, body, dropped)
    place = f"s3://{ctx.settings.s3_bucket}/{row.prefix}{INCOMING}"
    answer.filename_to_unsigned_uris = {name: place + name for name in row.files}
    return reply(answer, body.read_mask)


@router.get(
    "/{model_id:rid}:validateUpload",
    response_model=ValidateUploadResponse,
    summary="Have the uploaded files checked; the model is READY once they are good",
    responses=error_responses(("POST",)),  # a GET by its name only
)
async def validate_upload(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    model_id: str,
    skip_hf_config_validation: Annotated[bool, Query(alias="skipHfConfigValidation")] = False,
    trust_remote_code: Annotated[bool, Query(alias="trustRemoteCode")] = False,
    config_only: Annotated[bool, Query(alias="configOnly")] = False,
) -> Response:
    service.refuse_skipping(skip_hf_config_validation, trust_remote_code, config_only)
    async with ctx.work(caller) as work:
        row = await find(work.session, ModelRow, ResourceName(account_id, "models", model_id), lock=True)
        ask_for_check(row)
        work.hint(RECONCILE_MODEL, row.uid)
    row = await wait_for_verdict(ctx, ModelRow, row.uid)
    violations = [(problem["file"] or problem["field"], problem["reason"]) for problem in row.problems]
    refuse_if_invalid(row, [field_violations(violations)])
    return reply(ValidateUploadResponse(warnings=row.facts.get("warnings", [])))


@router.get(
    "/{model_id:rid}:getDownloadEndpoint",
    response_model=GetDownloadEndpointResponse,
    summary="Get a signed URL for each of the model's files",
)
async def get_download_endpoint(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.view", other_accounts=True)],
    account_id: str,
    model_id: str,
    readMask: str = "",
) -> Response:
    async with ctx.db.session() as session:
        row = await service.find_readable(session, caller, ResourceName(account_id, "models", model_id))
    return reply(downloads(ctx.store, row), readMask)


@router.post(
    "/{model_id:rid}:prepare",
    response_model=Empty,
    summary="Answers for the precision that the model has; refuses others",
)
async def prepare_model(
    ctx: ContextDep,
    caller: Annotated[Caller, may("resources.change")],
    account_id: str,
    model_id: str,
    body: Annotated[PrepareModelRequest, Body()],
) -> Response:
    async with ctx.db.session() as session:
        row = await find(session, ModelRow, ResourceName(account_id, "models", model_id))
    service.refuse_other_precision(row, body.precision)
    return reply(Empty())


@router.post("/{model_id:rid}:import", response_model=Empty, summary="Refused: models are uploaded")
async def import_model(
    caller: Annotated[Caller, may("resources.change")], account_id: str, model_id: str
) -> Response:
    raise unimplemented(NO_IMPORT)


@router.post("/{model_id:rid}/versions", response_model=Empty, summary="Refused: there are no versions")
async def create_model_version(
    caller: Annotated[Caller, may("resources.create")], account_id: str, model_id: str, versionId: str = ""
) -> Response:
    raise unimplemented(NO_VERSIONS)


@router.get("/{model_id:rid}/versions:count", response_model=Empty, summary="Refused: there are no versions")
async def count_model_versions(
    caller: Annotated[Caller, may("resources.view")], account_id: str, model_id: str
) -> Response:
    raise unimplemented(NO_VERSIONS)


@router.post(
    "/{model_id:rid}/versions/{version_id:rid}:deploy",
    response_model=Empty,
    summary="Refused: there are no versions",
)
async def deploy_model_version(
    caller: Annotated[Caller, may("resources.create")], account_id: str, model_id: str, version_id: str
) -> Response:
    raise unimplemented(NO_VERSIONS)


@configs.post(
    "/v1/validateModelConfig",
    response_model=Empty,
    summary="Whether a model with this config.json could be served; 400 with every problem when not",
)
async def validate_model_config(
    caller: Annotated[Caller, may("resources.view")], body: Annotated[ValidateModelConfigRequest, Body()]
) -> Response:
    """Chat templates are only looked at here; they are rendered when a model's files are checked."""
    check_model_config(body)
    return reply(Empty())
