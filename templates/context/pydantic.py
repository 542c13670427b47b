"""What travels with each request, validated by pydantic."""

from pydantic import BaseModel, ConfigDict


class RequestContext(BaseModel):
    """The caller's identity and preferences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user_id: str
    locale: str = "en"
    request_id: str = ""


def owner_of(context: RequestContext) -> str:
    """Return whose data this is: the first part of every key in the store.

    For an organisation's data, add a field `org_id`, return it here and set it in `context_for`.
    """
    return context.user_id


def context_for(owner: str) -> RequestContext:
    """Return a context that acts for this owner: `owner_of(context_for(owner)) == owner`."""
    return RequestContext(user_id=owner)


def locale_of(context: RequestContext) -> str:
    """Return the caller's language as a BCP 47 tag, `en` when none was sent."""
    return context.locale


def request_id_of(context: RequestContext) -> str:
    """Return the id that appears in the logs and in error messages, or an empty string."""
    return context.request_id
