"""Nobody reads the chart without a valid token; everybody may read what the server can do."""

import base64

import pytest

from sidecar.sandbox.ehr import Credentials


class _Seconds:
    def __init__(self):
        self.at = 0.0

    def __call__(self):
        return self.at


@pytest.fixture
def seconds():
    return _Seconds()


@pytest.fixture
def credentials(seconds):
    return Credentials(client_id="sidecar", client_secret="pa ss:word", expires_in=60, monotonic=seconds)


@pytest.fixture
async def closed(connect, credentials):
    return await connect(credentials=credentials)


async def _token(client, form, **headers):
    url = (await client("GET", ".well-known/smart-configuration")).body["token_endpoint"]
    headers = {"Content_Type": "application/x-www-form-urlencoded", **headers}
    return await client("POST", url, form.encode(), **headers)


FORM = "grant_type=client_credentials&client_id=sidecar&client_secret=pa+ss%3Aword"


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic open"])
async def test_the_static_bearer_opens_and_nothing_else_does(connect, authorization):
    client = await connect(credentials=Credentials(static_bearer="open"))
    for path in ("Patient", "Basic", "", "Patient/p1"):
        reply = await client("GET", path, Authorization=authorization)
        assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert reply.body["issue"][0]["code"] == "login"
    assert (await client("GET", "Patient", Authorization="Bearer open")).status == 200
    assert (await client("GET", "metadata")).status == 200


async def test_a_token_is_given_for_the_form_or_basic_and_opens_until_it_expires(closed, seconds):
    basic = base64.b64encode(b"sidecar:pa+ss%3Aword").decode()
    given = [
        await _token(closed, FORM + "&scope=system/Patient.rs"),
        await _token(closed, "grant_type=client_credentials", Authorization=f"Basic {basic}"),
    ]
    for reply in given:
        assert reply.status == 200
        assert (reply.body["token_type"], reply.body["expires_in"]) == ("bearer", 60)
        bearer = f"Bearer {reply.body['access_token']}"
        assert (await closed("GET", "Patient", Authorization=bearer)).status == 200
    assert [reply.body["scope"] for reply in given] == ["system/Patient.rs", "system/*.cruds"]
    seconds.at = 60.0
    assert (await closed("GET", "Patient", Authorization=bearer)).status == 401


async def test_revoked_tokens_stop_working_at_once(closed, credentials):
    bearer = f"Bearer {(await _token(closed, FORM)).body['access_token']}"
    credentials.expire_all()
    assert (await closed("GET", "Patient", Authorization=bearer)).status == 401
    bearer = f"Bearer {(await _token(closed, FORM)).body['access_token']}"
    assert (await closed("GET", "Patient", Authorization=bearer)).status == 200


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        (FORM.replace("word", "x"), 401, "invalid_client"),
        ("grant_type=client_credentials", 401, "invalid_client"),
        (FORM.replace("client_credentials", "password"), 400, "unsupported_grant_type"),
    ],
)
async def test_a_wrong_secret_or_grant_gets_no_token(closed, form, status, error):
    reply = await _token(closed, form)
    assert (reply.status, reply.body) == (status, {"error": error})


async def test_secrets_are_not_in_the_repr(credentials):
    assert "pa ss" not in repr(credentials)
    assert "open" not in repr(Credentials(static_bearer="open"))


async def test_the_capability_statement_says_where_tokens_are(closed):
    security = (await closed("GET", "metadata")).body["rest"][0]["security"]
    token_url = (await closed("GET", ".well-known/smart-configuration")).body["token_endpoint"]
    assert security["extension"][0]["extension"] == [{"url": "token", "valueUri": token_url}]
