"""What travels with each request, as a plain dict: `RequestContext(user_id="u1")` makes one."""

from typing import NotRequired

from typing_extensions import TypedDict


class RequestContext(TypedDict):
    """The caller's identity and preferences; pydantic needs typing_extensions on Python 3.11."""

    user_id: str
    locale: NotRequired[str]
    request_id: NotRequired[str]


def owner_of(context: RequestContext) -> str:
    """Return whose data this is: the first part of every key in the store.

    For an organisation's data, add a field `org_id`, return it here and set it in `context_for`.
    """
    return context["user_id"]


def context_for(owner: str) -> RequestContext:
    """Return a context that acts for this owner: `owner_of(context_for(owner)) == owner`."""
    return RequestContext(user_id=owner)


def locale_of(context: RequestContext) -> str:
    """Return the caller's language as a BCP 47 tag, `en` when none was sent."""
    return context.get("locale", "en")


def request_id_of(context: RequestContext) -> str:
    """Return the id that appears in the logs and in error messages, or an empty string."""
    return context.get("request_id", "")
