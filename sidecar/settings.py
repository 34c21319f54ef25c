"""Settings: one TOML file, closed; the environment overrides it; secrets only from files or the environment.

`SIDECAR__EHR__BASE_URL=...` overrides `[ehr] base_url`. A secret is never a value in the file: `secret_file = "path"`
names a file, and the matching environment variable (`SIDECAR_HOOK_SECRET`, ...) may hold it instead.
"""

import ipaddress
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from sidecar import toml
from sidecar.errors import Misconfigured
from sidecar.toml import Duration, Name

MIN_SECRET_CHARS = 16


class Closed(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(Closed):
    """Where the EHR reaches us, and where people and Prometheus do."""

    host: str = Field("127.0.0.1", description="Address on which notifications are taken.")
    port: int = Field(8080, ge=0, le=65535, description="Port on which notifications are taken.")
    public_url: str = Field(
        "http://127.0.0.1:8080", description="How the EHR reaches this server; goes into Subscriptions."
    )
    ops_host: str = Field("127.0.0.1", description="Address of /metrics, /livez and /readyz.")
    ops_port: int = Field(9090, ge=0, le=65535, description="Port of /metrics, /livez and /readyz.")
    admin_socket: Path | None = Field(
        None, description="Unix socket of the admin door; default: beside the SQLite file."
    )
    max_body_bytes: int = Field(8 * 1024 * 1024, ge=1024, description="Largest notification body.")
    hook_secret_file: Path | None = Field(
        None, description="File with the secret that each Subscription's own is derived from."
    )


class Ehr(Closed):
    """The FHIR R4 server, how to sign in, and what it takes."""

    base_url: str = Field(description="FHIR base. The access token goes to this origin and to no other.")
    auth: Literal["none", "bearer", "client_credentials", "private_key_jwt"] = Field(
        "none", description="`none` (on loopback only), `bearer`, `client_credentials` or `private_key_jwt` (SMART)."
    )
    token_url: str | None = Field(
        None, description="OAuth 2.0 token endpoint; SMART finds it when it is on the EHR's own origin."
    )
    client_id: str | None = Field(None, description="OAuth 2.0 client id.")
    credential_file: Path | None = Field(
        None, description="File with what `auth` needs: the bearer token, the client secret, or keys for SMART."
    )
    scope: str = Field("", description="OAuth 2.0 scope to ask for; default for SMART: what the models need.")
    timeout_s: float = Field(10.0, gt=0, description="Longest wait for one answer of the EHR.")
    max_connections: int = Field(32, ge=1, le=512, description="Most requests under way at once.")
    write_ladder: Literal["auto", "put", "conditional", "search"] = Field(
        "auto", description="How one write has exactly one effect; `auto` asks the CapabilityStatement."
    )
    score_value: Literal["{score}", "{ScoreOf}", "integer"] = Field(
        "{score}", description="How a points total is charted: a Quantity in that unit, or valueInteger."
    )
    probability: Literal["percent", "fraction", "range"] = Field(
        "percent",
        description="How a probability is charted: 12.3, 0.123, or a Range in %. The note always says the percentage.",
    )


Topic = Literal[
    "patient", "encounter", "observation", "condition", "medicationrequest", "medicationstatement",
    "medicationadministration", "procedure", "appointment", "allergyintolerance", "immunization", "diagnosticreport",
]  # fmt: skip


class Topics(Closed):
    """How events are told: R4 Backport Subscriptions where a topic is named, classic ones elsewhere."""

    topics: dict[Topic, str] = Field(
        default_factory=dict, description="Canonicals of the topics that tell of every change, by resource type."
    )
    content: Literal["empty", "id-only", "full-resource"] = Field(
        "id-only", description="What notifications carry; whatever they carry is read back."
    )
    heartbeat: Duration = Field(timedelta(seconds=60), description="How often the EHR says that it is still there.")
    life: Duration = Field(
        timedelta(days=1), description="How long a Subscription lives; renewed, with a new secret, at 60 % of it."
    )

    def of(self, source: str) -> str | None:
        """The topic of a source, None when it has none."""
        return next((topic for name, topic in self.topics.items() if name == source), None)


class Store(Closed):
    """The database and the keys of its identified columns."""

    url: str = Field(
        "sqlite:///sidecar.db", description="A SQLite file, or postgresql://user@host:port/name for several processes."
    )
    password_file: Path | None = Field(None, description="File with the PostgreSQL role's password, if it has one.")
    key_file: Path = Field(Path("sidecar-keys.toml"), description="Key ring made by `sidecar keys new`.")
    retention: Duration = Field(timedelta(days=7), description="How long completed events are kept.")
    dedupe_retention: Duration = Field(timedelta(days=90), description="How long their dedupe keys are kept.")


class Work(Closed):
    """How work is claimed and retried."""

    concurrency: int = Field(16, ge=1, le=256, description="Patients assessed at once.")
    lease: Duration = Field(timedelta(seconds=60), description="How long a claim holds before others may take it.")
    max_attempts: int = Field(8, ge=1, description="Attempts before an event or a write is buried with its reason.")
    catch_up_interval: Duration = Field(timedelta(seconds=60), description="How often missed events are searched for.")
    catch_up_overlap: Duration = Field(
        timedelta(seconds=120), description="Overlap of those searches; covers clock skew."
    )
    review_interval: Duration = Field(
        timedelta(minutes=5),
        description="How often inputs of results in force are re-read, of up to 4000 results at a time.",
    )


class ModelSettings(Closed):
    """What this site decided about one model. Without a promotion it runs in shadow: stored, never written."""

    version: str | None = Field(
        None, description="Version to run; default: the newest in the folder. A promotion names it."
    )
    promoted_by: str | None = Field(None, description="Who promoted it to write into the chart.")
    promoted_because: str | None = Field(None, description="Why. Kept in the open: it must not name a patient.")
    debounce: Duration | None = Field(None, description="How long events of one patient wait for each other.")
    max_wait: Duration | None = Field(None, description="The longest such wait.")
    spread: Duration | None = Field(None, description="Widest observation set.")
    max_age: dict[Name, Duration] = Field(default_factory=dict, description="Maximum age per input.")
    switches: dict[Name, bool] = Field(
        default_factory=dict, description="The site's answers to the manifest's switches."
    )
    choices: dict[Name, str] = Field(
        default_factory=dict, description="What the manifest asks the site and has no default for, such as a region."
    )

    @model_validator(mode="after")
    def _promotion_is_named(self) -> Self:
        if (self.promoted_by is None) != (self.promoted_because is None):
            raise ValueError("a promotion needs both promoted_by and promoted_because")
        if self.promoted_by is not None and self.version is None:
            raise ValueError("a promotion is of one version: set version too")
        return self


def _zone(value: object) -> object:
    if isinstance(value, str):
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError):
            raise ValueError('not an IANA time zone such as "Europe/London"') from None
    return value


class Deid(Closed):
    """What may reach a model."""

    mode: Literal["safe_harbor_rules", "keyed_pseudonyms", "limited_data_set"] = Field(
        "keyed_pseudonyms",
        description="What models may know: exact ages and intervals; or, under safe_harbor_rules, ages of 90 and more "
        "as one, so that models which need an exact age give no result for such patients.",
    )


class Facility(Closed):
    """The place whose days count."""

    time_zone: Annotated[str, BeforeValidator(_zone)] = Field(description="IANA time zone of the facility; required.")


class Settings(BaseSettings):
    """Everything a site sets."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="SIDECAR__",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    facility: Facility
    ehr: Ehr
    deid: Deid = Deid()
    server: Server = Server()
    subscriptions: Topics = Topics()
    store: Store = Store()
    work: Work = Work()
    models_dir: Path | None = Field(None, description="Folder of models; default: the shipped ones.")
    models: dict[Name, ModelSettings] = Field(description="The models to run, by name.", min_length=1)
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line written."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 -- pydantic calls by these names
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- pydantic calls by these names
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file; the file is handed in by `load`."""
        return env_settings, init_settings


def load(path: Path) -> Settings:
    """Read settings and check them as a whole. Relative paths are relative to the file.

    Raises:
        Misconfigured: listing every problem, with line and suggestion.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured([f"{path}: cannot be read ({type(error).__name__})"]) from None
    try:
        content = TomlConfigSettingsSource(Settings, path).toml_data
        settings = Settings(**_anchored(content, path.parent))
    except ValidationError as error:
        raise Misconfigured(toml.problems(error, text, str(path), Settings)) from None
    except ValueError as error:  # tomllib.TOMLDecodeError
        raise Misconfigured([f"{path}: not valid TOML: {error}"]) from None
    if found := check(settings):
        raise Misconfigured([f"{path}: {problem}" for problem in found])
    return settings


_PATHS = {"hook_secret_file", "credential_file", "key_file", "password_file", "admin_socket", "models_dir"}


def _anchored(content: Any, folder: Path) -> Any:
    """`content` with relative file names made relative to the settings file."""
    if not isinstance(content, dict):
        return content
    anchored = {k: _anchored(v, folder) for k, v in content.items()}
    for key in _PATHS & set(anchored):
        if isinstance(anchored[key], str):
            anchored[key] = folder / anchored[key]
    url = anchored.get("url")
    if isinstance(url, str) and url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
        anchored["url"] = "sqlite:///" + str((folder / url.removeprefix("sqlite:///")).resolve())
    return anchored


def is_loopback(url: str) -> bool:
    """Whether `url`'s host is this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_plain(url: str) -> bool:
    """Whether `url` is http(s)://host[:port][/path] and nothing more."""
    try:
        parts = urlsplit(url)
        fine = parts.port is None or parts.port > 0
    except ValueError:
        return False
    fine = fine and parts.scheme in {"http", "https"} and bool(parts.hostname)
    return fine and not (parts.query or parts.fragment or "@" in parts.netloc)


def check(settings: Settings) -> list[str]:
    """What is wrong with settings that are well-formed one by one."""
    found = []
    ehr = settings.ehr
    urls = {"ehr.base_url": ehr.base_url, "server.public_url": settings.server.public_url}
    if ehr.token_url is not None:
        urls["ehr.token_url"] = ehr.token_url
    for name, url in urls.items():
        if not _is_plain(url):
            found.append(f"{name} must be a plain http(s) URL without query or user")
        elif urlsplit(url).scheme == "http" and not is_loopback(url):
            found.append(f"{name} must be https: it is not on this machine")
    if ehr.auth == "none" and not is_loopback(ehr.base_url):
        found.append('ehr.auth = "none" is allowed on loopback only; use one of the others')
    if ehr.auth == "client_credentials" and not (ehr.token_url and ehr.client_id):
        found.append('ehr.auth = "client_credentials" needs ehr.token_url and ehr.client_id')
    if ehr.auth == "private_key_jwt" and not (ehr.credential_file and ehr.client_id):
        found.append('ehr.auth = "private_key_jwt" needs ehr.credential_file and ehr.client_id')
    return found + _check_store(settings.store)


POSTGRES_OPTIONS = frozenset({"host", "sslmode", "sslrootcert", "sslcert", "sslkey"})
SSL_MODES = ("disable", "require", "verify-ca", "verify-full")


def _check_store(store: Store) -> list[str]:
    """What is wrong with the database's URL. It is never repeated: people do write passwords into it."""
    if store.url.startswith("sqlite:///"):
        return []
    try:
        parts = urlsplit(store.url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        fine = (parts.port is None or parts.port > 0) and not parts.fragment
    except ValueError:
        fine = False
    fine = fine and parts.scheme == "postgresql" and bool(parts.username and parts.path.strip("/"))
    if not fine or any(sign in parts.netloc.rpartition("@")[2] for sign in ",%"):
        return ["store.url must be sqlite:///path/sidecar.db or postgresql://user@host:port/name"]
    found = []
    if parts.password is not None:
        found.append("store.url must not hold a password: use store.password_file or SIDECAR_STORE_PASSWORD")
    if unknown := set(options) - POSTGRES_OPTIONS:
        known = ", ".join(sorted(POSTGRES_OPTIONS))
        found.append(f"store.url takes {known} after the ?, and {len(unknown)} are others")
    if "host" in options and (parts.hostname or not options["host"].startswith("/")):
        found.append("store.url: ?host= names the folder of a Unix socket, in place of a host")
    if not parts.hostname and "host" not in options:
        found.append("store.url needs a host, or ?host=/folder of the server's Unix socket")
    return found + _check_encryption(options, local=not parts.hostname or is_loopback(store.url))


def _check_encryption(options: Mapping[str, str], *, local: bool) -> list[str]:
    mode = options.get("sslmode", "disable")
    if not local and mode not in {"verify-ca", "verify-full"}:
        return ["store.url needs ?sslmode=verify-full (or verify-ca): the database is not on this machine"]
    if mode not in SSL_MODES:
        return [f"store.url: sslmode is one of {', '.join(SSL_MODES)}"]
    if mode == "verify-ca" and "sslrootcert" not in options:
        return ["store.url: sslmode=verify-ca needs sslrootcert: any public authority would do without it"]
    return []


def store_password(store: Store) -> SecretStr | None:
    """The password of the PostgreSQL role; None when it signs in without one (peer, certificate).

    Raises:
        Misconfigured: the file cannot be read, or is readable by everyone.
    """
    if store.password_file is None and not os.environ.get("SIDECAR_STORE_PASSWORD"):
        return None
    return secret("store.password", "SIDECAR_STORE_PASSWORD", store.password_file, least=1)


def admin_socket(settings: Settings) -> Path | None:
    """Where the admin door is: the setting, else beside the SQLite file.

    PostgreSQL needs none: the command line may open the database beside the servers.
    """
    if settings.server.admin_socket or not settings.store.url.startswith("sqlite:///"):
        return settings.server.admin_socket
    return Path(settings.store.url.removeprefix("sqlite:///") + ".admin")


def secret(name: str, variable: str, file: Path | None, *, least: int = MIN_SECRET_CHARS) -> SecretStr:
    """A secret of at least `least` characters from its file, else from the environment variable.

    Raises:
        Misconfigured: neither is there, the file is readable by everyone, or the secret is short.
    """
    if file is not None:
        try:
            mode = file.stat().st_mode
            value = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured([f"{name}: {file} cannot be read ({type(error).__name__})"]) from None
        if mode & 0o007:
            raise Misconfigured([f"{name}: {file} is open to everyone; run: chmod 600 {file}"])
    else:
        value = os.environ.get(variable, "")
        if not value:
            raise Misconfigured([f"{name}: set {name}_file to a file that holds it, or the variable {variable}"])
    if len(value) < least:
        raise Misconfigured([f"{name}: shorter than {least} characters"])
    return SecretStr(value)
