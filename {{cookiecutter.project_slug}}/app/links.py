"""Signed addresses of files: an image tag sends no token, so the address itself holds one.

The token names the purpose, the owner, the file and the expiry, and works for whoever has it.
"""

import json
import re
import time
from contextlib import suppress
from typing import Literal
from urllib.parse import quote

from itsdangerous import BadData, URLSafeSerializer

from .context import RequestContext, context_for, owner_of
from .errors import ApiError
from .settings import Settings

PREVIEW = re.compile(rb'"((?:preview_)?url|src)":"preview:([\w.-]+)"')
"""A stored image: of an attachment, generated, or in a widget."""
MAX_SIGNED = 2000
"""In one answer: each takes 30 µs, and a page of a user's own tags may name 150,000 images."""
Purpose = Literal["file", "preview", "upload"]


class Links:
    """Makes and checks addresses, signed with SECRET_KEY."""

    def __init__(self, settings: Settings) -> None:
        self._base, self._seconds = settings.base_url, settings.file_link_seconds
        self._signer = URLSafeSerializer(settings.signing_key(), salt="files")

    def url(self, purpose: Purpose, attachment_id: str, context: RequestContext) -> str:
        """Return an address that works for one to two times FILE_LINK_SECONDS.

        It stays the same for a while, so that browsers can cache the file.
        """
        until = (int(time.time()) // self._seconds + 2) * self._seconds
        token = str(self._signer.dumps([purpose, owner_of(context), attachment_id, until]))
        return f"{self._base}/files/{quote(attachment_id, safe='')}/{purpose}?token={token}"

    def opened(self, token: str, purpose: Purpose, attachment_id: str) -> RequestContext:
        """Return the context of a link's owner; ApiError 404 for another use or if expired."""
        with suppress(BadData):
            what, owner, which, until = self._signer.loads(token)
            if (what, which) == (purpose, attachment_id) and until >= time.time():
                return context_for(owner)
        raise ApiError(404, "link", "This link has expired or is not valid. Reload the page.")

    def sign(self, data: bytes, context: RequestContext) -> bytes:
        """Replace the stored names of previews in serialized JSON with signed addresses."""

        def address(found: re.Match[bytes]) -> bytes:
            url = self.url("preview", found[2].decode(), context)
            return b'"' + found[1] + b'":' + json.dumps(url).encode()

        return PREVIEW.sub(address, data, MAX_SIGNED) if b'"preview:' in data else data
