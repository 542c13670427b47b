"""Signed addresses of files: an image tag carries no token, so the address itself must do.

An address names its purpose, its owner, the file and its end, and works for whoever has it.
"""

import json
import re
import time
from typing import Literal
from urllib.parse import quote

from itsdangerous import BadData, URLSafeSerializer

from .context import RequestContext, context_for, owner_of
from .errors import ApiError
from .settings import Settings

PREVIEW = re.compile(rb'"((?:preview_)?url|src)":"preview:([\w.-]+)"')
"""An image as it is stored: in an attachment, generated, or in a widget."""
Purpose = Literal["file", "preview", "upload"]


class Links:
    """Makes addresses and takes them; signs with SECRET_KEY."""

    def __init__(self, settings: Settings) -> None:
        self._base, self._seconds = settings.base_url, settings.file_link_seconds
        self._signer = URLSafeSerializer(settings.signing_key(), salt="files")

    def url(self, purpose: Purpose, attachment_id: str, context: RequestContext) -> str:
        """Return an address that works for one to two times FILE_LINK_SECONDS.

        It is the same for a while, so that browsers may cache what is there.
        """
        until = (int(time.time()) // self._seconds + 2) * self._seconds
        token = str(self._signer.dumps([purpose, owner_of(context), attachment_id, until]))
        tail = "/preview" if purpose == "preview" else ""
        return f"{self._base}/files/{quote(attachment_id, safe='')}{tail}?token={token}"

    def opened(self, token: str, purpose: Purpose, attachment_id: str) -> RequestContext:
        """Return for whom an address was signed; ApiError 404 when it is not for this or over."""
        try:
            what, owner, which, until = self._signer.loads(token)
        except (BadData, TypeError, ValueError):
            what = owner = which = until = None
        if (what, which) != (purpose, attachment_id) or until < time.time():
            raise ApiError(404, "link", "This address is over or was never good. Reload the page.")
        return context_for(owner)

    def sign(self, data: bytes, context: RequestContext) -> bytes:
        """Replace the stored names of previews in serialized JSON by addresses that work."""

        def address(found: re.Match[bytes]) -> bytes:
            url = self.url("preview", found[2].decode(), context)
            return b'"' + found[1] + b'":' + json.dumps(url).encode()

        return PREVIEW.sub(address, data) if b'"preview:' in data else data
