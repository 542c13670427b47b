"""Every setting of the app: its name in the environment, its default, its meaning.

Read from the environment, then from `.env`; the field `max_turns` is the variable `MAX_TURNS`.
"""

import re
import secrets
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .filetypes import EXTENSIONS, UNKNOWN

T = TypeVar("T")


def _split(value: object) -> object:
    if isinstance(value, str):
        return [name for name in map(str.strip, value.split(",")) if name]
    return value


def _like(pattern: str, hint: str) -> BeforeValidator:
    def check(text: str) -> str:
        if text and not re.fullmatch(pattern, text):
            raise ValueError(hint)
        return text

    return BeforeValidator(check)


Listed = Annotated[list[T], NoDecode, BeforeValidator(_split)]
"""A list written with commas: `ALLOWED_HOSTS=chat.example.com,localhost`."""
Url = Annotated[str, _like("https?://.+", "write the whole address, with https:// or http://")]
Origin = Annotated[str, _like(r"https?://[\w.:\[\]-]+", "write it as https://chat.example.com")]
"""No wildcard: cookies would go to any page."""
Host = Annotated[str, _like(r"[\w.-]+|\[[\w:]+\]", "write each host's name, no scheme or port")]
Place = Annotated[str, _like("(file|s3|gs|az|memory)://.*", "write s3://bucket or file:///folder")]
KINDS = [*EXTENSIONS, UNKNOWN]
Kind = Annotated[str, _like("|".join(KINDS), f"choose from {', '.join(KINDS)}")]


class Settings(BaseSettings):
    """What can be set, in the order in which a team meets it."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, allow_inf_nan=False
    )

    environment: Literal["development", "production"] = Field(
        "development", description="development or production; production refuses unsafe settings"
    )
    host: str = Field("127.0.0.1", description="the address to listen on; development: loopback")
    port: int = Field(8000, ge=0, le=65535, description="the port to listen on; 0: any free one")
    public_url: Url = Field("", description="the app's address; empty: the first of ALLOWED_HOSTS")
    workers: int = Field(1, ge=1, le=64, description="processes on this machine; memory: only 1")
    reload: bool = Field(default=False, description="development: restart when app/ has changed")
    data_dir: Path = Field(Path(".data"), description="uploaded files; in development all data")
    # jinja: if cookiecutter.storage_type == "postgres"
    store_pool_size: int = Field(10, ge=1, le=1000, description="connections a process may hold")
    store_statement_cache_size: int = Field(
        100, ge=0, description="prepared statements a connection keeps; 0 behind PgBouncer"
    )
    # jinja: endif
    store_url: str = Field(
        "",
        validation_alias=AliasChoices(
            "store_url",
            # jinja: if cookiecutter.storage_type == "redis"
            "redis_url",
            # jinja: elif cookiecutter.storage_type == "postgres"
            "database_url",
            # jinja: endif
        ),
        description="where conversations live; empty in development: an engine of the app's own",
    )

    openai_api_key: SecretStr = Field(SecretStr(""), description="empty: the offline model answers")
    openai_base_url: Url = Field("", description="another server's address; most end in /v1")
    model: str = Field("gpt-5-mini", description="the model's name as its server knows it")
    model_api: Literal["responses", "chat_completions"] = Field(
        "responses", description="chat_completions for LiteLLM, vLLM, Ollama and most others"
    )
    title_model: str = Field("", description="names threads after the first answer; empty: off")
    transcribe_model: str = Field("", description="dictation: gpt-4o-mini-transcribe; empty: off")
    allowed_models: Listed[str] = Field([], description="models a user may choose in the composer")
    allowed_tools: Listed[str] = Field([], description="tools a user may choose in the composer")
    history_items: int = Field(50, ge=1, le=10_000, description="newest items the model is given")
    history_chars: int = Field(100_000, ge=1000, description="newest characters, files not counted")
    max_turns: int = Field(10, ge=1, description="the SDK's turns: model calls in one answer")
    turn_seconds: float = Field(300, gt=0, description="the longest a whole answer may take")
    tool_seconds: float = Field(60, gt=0, description="the longest one tool may take")

    heartbeat_seconds: float = Field(15, gt=0, description="silence before a keep-alive comment")
    on_disconnect: Literal["cancel", "finish"] = Field(
        "cancel", description="what a closed connection does to its answer: cancel or finish"
    )
    shutdown_seconds: float = Field(10, ge=0, description="how long answers may run after SIGTERM")

    secret_key: SecretStr = Field(SecretStr(""), description="signs cookies and file addresses")
    oidc_issuer: Url = Field("", description="login: the issuer that signs the bearer tokens")
    oidc_audience: str = Field("", description="login: the audience that the tokens must name")
    allow_anonymous: bool = Field(default=False, description="no login in production, only cookies")
    allowed_origins: Listed[Origin] = Field([], description="other origins that may call the app")
    allowed_hosts: Listed[Host] = Field([], description="Host headers to accept besides loopback's")

    max_body_bytes: int = Field(1 << 20, ge=1024, description="a request's body, except uploads")
    max_text_chars: int = Field(32_000, ge=1, description="the text of one message")
    max_audio_bytes: int = Field(10 << 20, ge=1, description="one dictation")
    max_attachments: int = Field(10, ge=0, description="files in one message; 0: no uploads")
    max_file_bytes: int = Field(20 << 20, ge=1, description="one uploaded file")
    max_user_file_bytes: int = Field(500 << 20, ge=1, description="a user's files; at most 5,000")
    files_url: Place = Field("", description="s3:, gs:, az:, file: or memory:; empty: DATA_DIR")
    file_types: Listed[Kind] = Field(
        [*EXTENSIONS], description="recognised by their bytes; application/octet-stream: any other"
    )
    file_link_seconds: int = Field(1800, ge=1, description="how long a file's address works")
    upload_strategy: Literal["direct", "two_phase"] = Field(
        "direct", description="how the page sends files: direct or two_phase"
    )
    turns_per_user: int = Field(4, ge=1, description="one user's concurrent answers, per process")
    turns_total: int = Field(500, ge=1, description="all concurrent answers, per process")
    requests_per_minute: int = Field(240, ge=1, description="per user and process, not downloads")
    tokens_per_day: int = Field(0, ge=0, description="tokens per user, day and process; 0: no cap")

    chatkit_script_url: str = Field(
        "https://cdn.platform.openai.com/deployments/chatkit/chatkit.js",
        description="where the page loads the component from",
    )
    chatkit_domain_key: str = Field("domain_pk_localhost_dev", description="from OpenAI's settings")
    plain_client: bool | None = Field(
        None, description="the page's own client as a fallback; empty: in development only"
    )
    image_hosts: Listed[Origin] = Field([], description="other origins that images may come from")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error"
    )
    metrics_token: SecretStr = Field(SecretStr(""), description="bearer token that opens /metrics")
    trace_content: bool = Field(default=False, description="OpenAI's traces include what was said")

    @model_validator(mode="after")
    def _safe(self) -> Self:
        """Refuse what is open, forgetful or signed with a known key; name the setting to change."""
        shown = self.development and self.host not in ("127.0.0.1", "localhost", "::1")
        # jinja: if cookiecutter.storage_type == "memory"
        forgetful = self.workers > 1
        # jinja: else
        forgetful = self.workers > 1 and self.files_url.startswith("memory:")
        # jinja: endif
        key, token = (s.get_secret_value() for s in (self.secret_key, self.metrics_token))
        weak = len(key) < 32 or len(set(key)) < 10  # a word or a placeholder
        issuer, plain = self.oidc_issuer, re.compile(r"http://(?!localhost|127\.|\[::1\])").match
        any_app = issuer and not self.oidc_audience
        nobody = not issuer and not self.allow_anonymous
        copied = self.chatkit_domain_key.startswith("domain_pk_localhost")
        faults: dict[str, object] = {
            f"HOST={self.host} would expose a development app to the network: keep HOST=127.0.0.1, "
            "or set ENVIRONMENT=production": shown,
            "WORKERS must be 1: memory lives in one process": forgetful,
            "RELOAD is for development with one worker": self.reload
            and (self.workers > 1 or not self.development),
        }
        if not self.development:
            faults |= {
                "STORE_URL is not set: say where conversations live": not self.store_url,
                "SECRET_KEY needs 32 random characters: openssl rand -hex 32": weak,
                "OIDC_AUDIENCE is not set: a token for any app would be accepted": any_app,
                "OIDC_ISSUER is not set: set it, or ALLOW_ANONYMOUS=true": nobody,
                "OIDC_ISSUER needs https://: its keys could be changed in transit": plain(issuer),
                "PUBLIC_URL needs https://: files are fetched from it": plain(self.public_url),
                "CHATKIT_DOMAIN_KEY is the placeholder: set your domain's key": copied,
                "ALLOWED_HOSTS is not set: name the hosts to answer for": not self.allowed_hosts,
                "METRICS_TOKEN needs 16 characters: guesses are not limited": 0 < len(token) < 16,
            }
        if found := [text for text, wrong in faults.items() if wrong]:
            raise ValueError("\n".join(found))
        return self

    @property
    def development(self) -> bool:
        """Say whether the conveniences for development are on."""
        return self.environment == "development"

    @property
    def base_url(self) -> str:
        """Return the app's own address without a slash: files are named by absolute URLs."""
        if self.public_url:
            return self.public_url.rstrip("/")
        if not self.development and self.allowed_hosts:
            return f"https://{self.allowed_hosts[0]}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def signing_key(self) -> str:
        """Return SECRET_KEY, or in development a key made once and kept in DATA_DIR."""
        if key := self.secret_key.get_secret_value():
            return key
        path = self.data_dir / "secret_key"
        if not (path.exists() and path.stat().st_size):  # empty: the disk was full
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(32))
        return path.read_text()
