"""Settings: closed, checked as a whole, secrets from files or the environment only."""

import pytest

from sidecar.app import Sidecar
from sidecar.errors import Misconfigured
from sidecar.settings import load, secret, store_password
from tests.harness import settings_text, write_site

EHR = "http://127.0.0.1:9/fhir"


def problems(folder, text: str) -> list[str]:
    """What `load` says of `text`; it must refuse it."""
    path = folder / "sidecar.toml"
    path.write_text(text)
    with pytest.raises(Misconfigured) as refused:
        load(path)
    return refused.value.problems


def site(**sections: str) -> str:
    return settings_text(EHR, 8080, 9090, **sections)


def test_good_settings_are_taken(tmp_path):
    assert load(write_site(tmp_path, EHR)).ehr.base_url == EHR


def test_an_unknown_key_is_refused_with_its_line_and_what_was_probably_meant(tmp_path):
    text = site(ehr='timeout = 3\nbase_url = "http://127.0.0.1:9/fhir"', work='leese = "3s"')
    found = problems(tmp_path, text)
    lines = text.splitlines()
    for key, meant in (("ehr.timeout", "timeout_s"), ("work.leese", "lease")):
        number = next(n for n, line in enumerate(lines, 1) if line.startswith(key.partition(".")[2] + " ="))
        assert f'sidecar.toml:{number}: unknown key {key}; did you mean "{meant}"?' in " ".join(found)


def test_an_unknown_table_is_refused(tmp_path):
    assert any("unknown key storage" in p for p in problems(tmp_path, site(storage='url = "x"')))


def test_every_problem_is_listed_at_once(tmp_path):
    text = site(server="port = 99999", work='lease = "soon"', ehr="colour = 1", facility='time_zone = "Mars/Base"')
    found = " ".join(problems(tmp_path, text))
    for part in ("server.port", "work.lease", "ehr.colour", "facility.time_zone"):
        assert part in found


def test_a_refusal_does_not_repeat_the_value(tmp_path):
    found = problems(tmp_path, site(ehr='bearer_token = "s3cret-canary"', work='lease = "s3cret-canary"'))
    assert "s3cret-canary" not in " ".join(found)


def test_text_that_is_not_toml_is_refused_with_its_line(tmp_path):
    (found,) = problems(tmp_path, "[ehr\n")
    assert "not valid TOML" in found
    assert "line 1" in found


def test_a_missing_file_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(Misconfigured, match="cannot be read"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "url",
    [
        "http://ehr.example/fhir",
        "http://10.0.0.7/fhir",
        "http://127.0.0.1.example/fhir",
        "http://localhost.example/",
        "http://0.0.0.0/fhir",
    ],
)
def test_plain_http_is_refused_off_this_machine(tmp_path, url):
    found = problems(tmp_path, site(ehr=f'base_url = "{url}"\nauth = "bearer"'))
    assert any("ehr.base_url must be https" in p for p in found)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/fhir", "http://localhost/fhir", "http://[::1]:80/fhir"])
def test_plain_http_is_allowed_on_this_machine(tmp_path, url):
    (tmp_path / "sidecar.toml").write_text(site(ehr=f'base_url = "{url}"'))
    load(tmp_path / "sidecar.toml")


def test_plain_http_for_notifications_from_elsewhere_is_refused(tmp_path):
    found = problems(tmp_path, site(server='public_url = "http://sidecar.example"'))
    assert any("server.public_url must be https" in p for p in found)


def test_plain_http_to_a_token_endpoint_elsewhere_is_refused(tmp_path):
    ehr = 'auth = "client_credentials"\ntoken_url = "http://login.example/token"\nclient_id = "c"'
    assert any("ehr.token_url must be https" in p for p in problems(tmp_path, site(ehr=ehr)))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "127.0.0.1/fhir",
        "https:///fhir",
        "https://user@ehr.example/fhir",
        "https://ehr.example/fhir?x=1",
        "https://ehr.example/fhir#x",
        "https://[::1/fhir",
        "https://ehr.example:99999/fhir",
        "",
    ],
)
def test_a_base_that_is_not_a_plain_url_is_refused_with_a_sentence(tmp_path, url):
    found = problems(tmp_path, site(ehr=f'base_url = "{url}"\nauth = "bearer"'))
    assert any("ehr.base_url must be a plain http(s) URL" in p for p in found)


def test_an_ehr_elsewhere_must_be_signed_in_to(tmp_path):
    found = problems(tmp_path, site(ehr='base_url = "https://ehr.example/fhir"'))
    assert any('ehr.auth = "none" is allowed on loopback only' in p for p in found)


def test_client_credentials_need_an_endpoint_and_a_client(tmp_path):
    assert any("token_url" in p for p in problems(tmp_path, site(ehr='auth = "client_credentials"')))


def test_the_time_zone_is_required(tmp_path):
    found = problems(tmp_path, site().replace('time_zone = "Europe/London"', ""))
    assert any("facility.time_zone" in p for p in found)


@pytest.mark.parametrize("zone", ["GMT+1h", "", "../../etc/passwd", "/etc/localtime", "Europe"])
def test_a_time_zone_that_is_not_iana_is_refused_with_a_sentence(tmp_path, zone):
    assert any("IANA" in p for p in problems(tmp_path, site(facility=f'time_zone = "{zone}"')))


def test_a_promotion_names_who_and_why(tmp_path):
    text = site().replace('promoted_because = "tests"', "")
    assert any("promoted_because" in p for p in problems(tmp_path, text))


def test_the_environment_overrides_one_key_and_keeps_the_rest_of_its_table(tmp_path, monkeypatch):
    monkeypatch.setenv("SIDECAR__EHR__TIMEOUT_S", "3.5")
    monkeypatch.setenv("SIDECAR__SERVER__PORT", "8181")
    found = load(write_site(tmp_path, EHR))
    assert (found.ehr.timeout_s, found.ehr.base_url, found.server.port) == (3.5, EHR, 8181)


def test_an_unknown_key_in_the_environment_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SIDECAR__EHR__TIMEOUT", "3")
    assert any("ehr.timeout" in p.lower() for p in problems(tmp_path, site()))


def test_relative_paths_are_relative_to_the_settings_file(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    found = load(write_site(tmp_path, EHR))
    assert found.store.key_file == tmp_path / "keys.toml"
    assert found.server.hook_secret_file == tmp_path / "hook-secret"
    assert found.store.url == f"sqlite:///{tmp_path}/sidecar.db"


# --- the database's URL ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://sidecar@127.0.0.1/sidecar",
        "postgresql://sidecar@localhost:5433/sidecar?sslmode=disable",
        "postgresql://sidecar@/sidecar?host=/var/run/postgresql",
        "postgresql://sidecar@db.example:5432/sidecar?sslmode=verify-full&sslrootcert=/etc/db-ca.pem",
        "postgresql://sidecar@10.1.2.3/sidecar?sslmode=verify-ca&sslrootcert=/etc/db-ca.pem",
    ],
)
def test_a_good_database_url_is_taken(tmp_path, url):
    assert load(write_site(tmp_path, EHR, store=f'url = "{url}"')).store.url == url


BAD_URLS = {
    "mysql://sidecar@127.0.0.1/sidecar": "must be",
    "postgresql://127.0.0.1": "must be",
    "postgresql://sidecar@127.0.0.1:99999/sidecar": "must be",
    "postgresql://sidecar@127.0.0.1,db.example/sidecar": "must be",
    "postgresql://sidecar@[::1/sidecar": "must be",
    "postgresql://sidecar@127.0.0.1/sidecar?sslmode": "must be",
    "sidecar.db": "must be",
    "postgresql://sidecar:s3cret-canary@127.0.0.1/sidecar": "must not hold a password",
    "postgresql://sidecar@127.0.0.1/sidecar?password=s3cret-canary": "are others",
    "postgresql://sidecar@127.0.0.1/sidecar?host=db.example": "Unix socket",
    "postgresql://sidecar@/sidecar?host=db.example": "Unix socket",
    "postgresql://sidecar@/sidecar": "needs a host",
    "postgresql://127.0.0.1/sidecar": "must be",
    "postgresql://sidecar@h%2f/sidecar": "must be",
    "postgresql://sidecar@127.0.0.1/sidecar?sslmode=prefer": "sslmode is one of",
    "postgresql://sidecar@10.1.2.3/sidecar?sslmode=verify-ca": "needs sslrootcert",
    "postgresql://sidecar@db.example/sidecar": "sslmode=verify-full",
    "postgresql://sidecar@db.example/sidecar?sslmode=require": "sslmode=verify-full",
    "postgresql://sidecar@127.0.0.1.example/sidecar?sslmode=prefer": "sslmode=verify-full",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_database_url_is_refused_with_a_sentence_and_not_repeated(tmp_path, url):
    found = " ".join(problems(tmp_path, site(store=f'url = "{url}"')))
    assert BAD_URLS[url] in found
    assert "canary" not in found


def test_the_databases_password_comes_from_a_file_or_the_environment_or_there_is_none(tmp_path, monkeypatch):
    monkeypatch.delenv("SIDECAR_STORE_PASSWORD", raising=False)
    config = write_site(tmp_path, EHR)
    assert store_password(load(config).store) is None
    monkeypatch.setenv("SIDECAR_STORE_PASSWORD", "canary-env")
    assert store_password(load(config).store).get_secret_value() == "canary-env"
    (tmp_path / "file").mkdir()
    held(tmp_path, "canary\n")
    config = write_site(tmp_path / "file", EHR, store='password_file = "../secret"')
    found = load(config).store
    assert store_password(found).get_secret_value() == "canary"
    assert "canary" not in repr(found) + repr(store_password(found))
    held(tmp_path, "canary", 0o644)
    with pytest.raises(Misconfigured, match="chmod 600"):
        store_password(found)


# --- secrets ---------------------------------------------------------------------------------------------------------


def held(folder, text: str, mode: int = 0o600):
    path = folder / "secret"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_secret_comes_from_its_file_without_the_line_end(tmp_path):
    assert secret("x", "NOT_SET", held(tmp_path, "a-secret-long-enough\n")).get_secret_value() == "a-secret-long-enough"


def test_a_secret_comes_from_the_environment_when_no_file_is_named(monkeypatch):
    monkeypatch.setenv("SIDECAR_HOOK_SECRET", "a-secret-long-enough")
    assert secret("x", "SIDECAR_HOOK_SECRET", None).get_secret_value() == "a-secret-long-enough"


@pytest.mark.parametrize("text", ["", "canary", "fifteen-letters", " " * 40])
def test_a_short_secret_is_refused_and_not_shown(tmp_path, text):
    with pytest.raises(Misconfigured) as refused:
        secret("server.hook_secret", "NOT_SET", held(tmp_path, text))
    assert "shorter than 16" in refused.value.problems[0]
    assert not text.strip() or text not in refused.value.problems[0]


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o666])
def test_a_secret_file_open_to_everyone_is_refused(tmp_path, mode):
    with pytest.raises(Misconfigured, match="chmod 600"):
        secret("x", "NOT_SET", held(tmp_path, "a-secret-long-enough", mode))


def test_a_secret_that_is_nowhere_says_where_to_put_it(monkeypatch):
    monkeypatch.delenv("SIDECAR_HOOK_SECRET", raising=False)
    with pytest.raises(Misconfigured) as refused:
        secret("server.hook_secret", "SIDECAR_HOOK_SECRET", None)
    assert "server.hook_secret_file" in refused.value.problems[0]
    assert "SIDECAR_HOOK_SECRET" in refused.value.problems[0]


def test_a_secret_file_that_cannot_be_read_is_refused_with_a_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(Misconfigured, match="cannot be read"):
            secret("x", "NOT_SET", path)


def test_a_secret_cannot_be_written_into_the_settings_file(tmp_path):
    for table, key in (("server", "hook_secret"), ("ehr", "bearer_token"), ("ehr", "client_secret")):
        assert any("unknown key" in p for p in problems(tmp_path, site(**{table: f'{key} = "a-secret-long-enough"'})))


def test_a_secret_is_in_no_repr(tmp_path):
    config = write_site(tmp_path, EHR)
    found = load(config)
    value = secret("x", "NOT_SET", held(tmp_path, "a-secret-long-enough"))
    sidecar = Sidecar(found)
    shown = f"{value!r} {value} {found!r} {sidecar!r} {sidecar.rooms!r} {sidecar.door!r}"
    assert "a-secret-long-enough" not in shown
    assert "a-hook-secret" not in shown
    sidecar.rooms.store.close()


def test_start_lists_every_missing_thing_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("SIDECAR_EHR_TOKEN", raising=False)
    config = write_site(tmp_path, EHR, ehr='auth = "bearer"')
    (tmp_path / "keys.toml").unlink()
    (tmp_path / "hook-secret").unlink()
    with pytest.raises(Misconfigured) as refused:
        Sidecar(load(config))
    found = " ".join(refused.value.problems)
    for part in ("keys.toml", "server.hook_secret", "ehr.credential"):
        assert part in found


# --- signing in ------------------------------------------------------------------------------------------------------


def test_signing_requests_needs_keys_and_a_client(tmp_path):
    found = problems(tmp_path, site(ehr='auth = "private_key_jwt"'))
    assert any("ehr.credential_file and ehr.client_id" in p for p in found)


@pytest.mark.parametrize(
    "url", ["http://login.example/token", "https://login.example/token?x=1", "https://u@login.example/t"]
)
def test_a_token_endpoint_that_is_set_is_a_plain_https_url_whatever_the_sign_in(tmp_path, url):
    for auth in ("private_key_jwt", "client_credentials", "bearer"):
        ehr = f'auth = "{auth}"\ntoken_url = "{url}"\nclient_id = "c"\ncredential_file = "k"'
        assert any("ehr.token_url must be" in p for p in problems(tmp_path, site(ehr=ehr)))


def test_start_lists_what_is_wrong_with_the_keys_beside_everything_else(tmp_path):
    ehr = 'auth = "private_key_jwt"\nclient_id = "c"\ncredential_file = "smart-keys.json"'
    config = write_site(tmp_path, EHR, ehr=ehr)
    (tmp_path / "hook-secret").unlink()
    held(tmp_path, "").rename(tmp_path / "smart-keys.json")
    with pytest.raises(Misconfigured) as refused:
        Sidecar(load(config))
    assert len(refused.value.problems) == 2
    assert any("smart-keys.json: not a JWK Set" in p for p in refused.value.problems)


def test_a_bearer_token_that_no_header_can_carry_is_refused_and_not_shown(tmp_path):
    held(tmp_path, "a-bearer-token\r\nX-Canary: 1")
    with pytest.raises(Misconfigured) as refused:
        Sidecar(load(write_site(tmp_path, EHR, ehr='auth = "bearer"\ncredential_file = "secret"')))
    (found,) = refused.value.problems
    assert "no header can carry" in found
    assert "Canary" not in found
