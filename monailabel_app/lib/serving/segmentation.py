"""POST /infer/{model}?output=dicom_seg, by the app's own DICOM SEG writer instead of the stock one."""

import json
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

from fastapi import APIRouter, Depends, Form, HTTPException
from fastapi.background import BackgroundTasks
from fastapi.responses import FileResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

router = APIRouter()
Viewer = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]


class Segmenter(Protocol):
    """The part of the app that this route needs."""

    def dicom_segmentation(self, request: dict[str, Any]) -> Path:
        """A finished DICOM SEG file, for the caller to remove."""
        ...


@router.post("/infer/{model}", include_in_schema=False)
async def infer_dicom(
    background: BackgroundTasks,
    model: str,
    user: Viewer,
    image: str = "",
    params: Annotated[str, Form()] = "{}",
) -> FileResponse:
    """Segment an image of the archive and answer with a DICOM SEG file, which is removed once it is sent."""
    if not image:
        raise HTTPException(400, "dicom_seg needs the id of a series in the image archive")
    request = {**json.loads(params or "{}"), "model": model, "image": image}
    path = cast(Segmenter, app_instance()).dicom_segmentation(request)
    background.add_task(path.unlink, missing_ok=True)
    return FileResponse(path, media_type="application/dicom", filename=path.name)
