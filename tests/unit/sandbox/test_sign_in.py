"""The practice EHR believes a signed assertion as a real one does, and lets a token do what its scopes say."""

import time
import uuid

import aiohttp
import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from sidecar.sandbox.ehr import Credentials
from sidecar.sandbox.permissions import both, parse, required, text

EC = ECKey.generate_key("P-384", {"kid": "ec", "alg": "ES384"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "alg": "RS384"})
JWKS = {"keys": [EC.as_dict(private=False), RSA.as_dict(private=False)]}
PATIENT = {"resourceType": "Patient", "id": "p1"}


@pytest.fixture
def credentials():
    return Credentials(client_id="sidecar", jwks=JWKS)


@pytest.fixture
async def closed(connect, credentials):
    client = await connect(credentials=credentials)
    await client.ehr.write(PATIENT)
    return client


async def token_url(client):
    return (await client("GET", ".well-known/smart-configuration")).body["token_endpoint"]


async def asked(client, key=EC, header=None, scope="system/Patient.rs", **changes):
    """A token request; `changes` are of the claims, None leaves one out."""
    url = await token_url(client)
    now = int(time.time())
    claims = {"iss": "sidecar", "sub": "sidecar", "aud": url, "exp": now + 240, "jti": str(uuid.uuid4())}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    head = {"alg": "ES384" if key is EC else "RS384", "kid": key.kid, "typ": "JWT", **(header or {})}
    assertion = jwt.encode({n: v for n, v in head.items() if v is not None}, claims, key, algorithms=[head["alg"]])
    return await sent(client, url, assertion, scope)


async def sent(client, url, assertion, scope="system/Patient.rs"):
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    form = f"grant_type=client_credentials&client_assertion_type={kind}&client_assertion={assertion}&scope={scope}"
    return await client("POST", url, form.encode(), Content_Type="application/x-www-form-urlencoded")


async def test_either_algorithm_is_believed(closed):
    for key in (EC, RSA):
        reply = await asked(closed, key)
        assert (reply.status, reply.body["scope"], reply.body["token_type"]) == (200, "system/Patient.rs", "bearer")
        authorization = f"Bearer {reply.body['access_token']}"
        assert (await closed("GET", "Patient/p1", Authorization=authorization)).status == 200


NOW = time.time()
WRONG = {
    "another client": {"iss": "another"}, "another subject": {"sub": "another"}, "no subject": {"sub": None}, "another audience": {"aud": "http://x/token"},
    "the base as audience": {"aud": "http://127.0.0.1/fhir"}, "no audience": {"aud": None}, "no end": {"exp": None}, "an end in the past": {"exp": int(NOW) - 1},
    "an end in an hour": {"exp": int(NOW) + 3600}, "no jti": {"jti": None}, "begun tomorrow": {"iat": int(NOW) + 86400}, "not yet": {"nbf": int(NOW) + 3600},
    "an unknown kid": {"header": {"kid": "none"}}, "no kid": {"header": {"kid": None}}, "another type": {"header": {"typ": "at+jwt"}}, "another's kid": {"header": {"kid": "rsa"}},
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
async def test_an_assertion_that_proves_nothing_gets_no_token_and_the_log_says_why(closed, credentials, name):
    reply = await asked(closed, **WRONG[name])
    assert (reply.status, reply.body) == (401, {"error": "invalid_client"})
    assert len(credentials.refusals) == 1


async def test_another_key_of_the_same_name_is_not_believed(closed, credentials):
    stranger = ECKey.generate_key("P-384", {"kid": "ec"})
    reply = await asked(closed, stranger, header={"alg": "ES384"})
    assert reply.status == 401
    assert "BadSignature" in credentials.refusals[0]


@pytest.mark.parametrize("assertion", ["", "x", "a.b.c", "eyJhbGciOiJub25lIiwia2lkIjoiZWMiLCJ0eXAiOiJKV1QifQ.e30."])
async def test_what_is_no_assertion_is_refused(closed, assertion):
    assert (await sent(closed, await token_url(closed), assertion)).status == 401


async def test_an_assertion_counts_once(closed):
    jti = str(uuid.uuid4())
    assert [(await asked(closed, jti=jti)).status for _ in range(2)] == [200, 401]


async def test_an_algorithm_that_is_not_announced_is_refused(connect):
    client = await connect(credentials=Credentials(client_id="sidecar", jwks=JWKS, algorithms=("RS384",)))
    configuration = (await client("GET", ".well-known/smart-configuration")).body
    assert configuration["token_endpoint_auth_signing_alg_values_supported"] == ["RS384"]
    assert "private_key_jwt" in configuration["token_endpoint_auth_methods_supported"]
    assert [(await asked(client, key)).status for key in (EC, RSA)] == [401, 200]


async def test_after_a_rotation_the_old_key_is_refused_and_the_new_one_believed(closed, credentials):
    other = ECKey.generate_key("P-384", {"kid": "other"})
    credentials.rotate({"keys": [other.as_dict(private=False)]})
    assert (await asked(closed, EC)).status == 401
    assert (await asked(closed, other, header={"alg": "ES384"})).status == 200


async def test_keys_behind_a_url_are_fetched_again_for_a_name_that_is_not_known(connect):
    served = [{"keys": JWKS["keys"][:1]}, JWKS]

    async def keys(_: web.Request) -> web.Response:
        return web.json_response(served.pop(0) if len(served) > 1 else served[0])

    app = web.Application()
    app.router.add_get("/jwks", keys)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    client = await connect(credentials=Credentials(client_id="sidecar", jwks_url=url))
    assert [(await asked(client, key)).status for key in (EC, RSA, EC)] == [200, 200, 200]
    await runner.cleanup()


async def test_keys_behind_a_url_elsewhere_are_not_fetched(connect):
    access = Credentials(client_id="sidecar", jwks_url="http://192.0.2.1/jwks")
    assert (await asked(await connect(credentials=access))).status == 401
    assert access.refusals == ["jwks_url is not on this machine"]


# --- scopes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registered", "asked_for", "granted"),
    [
        ("system/*.cruds", "system/Patient.rs", "system/Patient.rs"), ("system/Patient.rs", "system/Patient.cruds", "system/Patient.rs"),
        ("system/*.read", "system/Patient.crus", "system/Patient.rs"), ("system/Patient.r system/Group.s", "system/*.rs", "system/Group.s system/Patient.r"),
        ("system/*.rs", "system/*.cruds system/Patient.c", "system/*.rs system/Patient.rs"), ("system/Group.rs", "system/Patient.rs", ""),
        ("system/*.cruds", "user/Patient.rs openid system/Patient.sr system/Patient. system/Patient.rs?x=1", ""),
    ],
)  # fmt: skip
def test_what_is_granted_is_what_is_asked_for_and_registered(registered, asked_for, granted):
    assert text(both(parse(asked_for), parse(registered))) == granted


def test_a_version_1_server_knows_its_own_words_only():
    assert text(parse("system/Patient.read system/Patient.rs system/Group.write", v1_only=True), v1=True) == (
        "system/Group.write system/Patient.read"
    )


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/Patient/p1", ("Patient", "r")), ("GET", "/Patient/p1/_history/1", ("Patient", "r")), ("GET", "/Patient/p1/_history", ("Patient", "r")),
        ("GET", "/Patient", ("Patient", "s")), ("GET", "/Patient/_history", ("Patient", "s")), ("POST", "/Patient/_search", ("Patient", "s")),
        ("POST", "/Patient", ("Patient", "c")), ("PUT", "/Patient/p1", ("Patient", "u")), ("DELETE", "/Patient/p1", ("Patient", "d")),
        ("GET", "/Subscription/s1/$status", ("Subscription", "r")), ("POST", "/Subscription/s1/$events", ("Subscription", "r")), ("POST", "/", ("*", "cruds")),
    ],
)  # fmt: skip
def test_every_interaction_needs_its_letter(method, path, needed):
    assert required(method, path) == needed


@pytest.mark.parametrize(
    ("scope", "statuses"),
    [
        ("system/Patient.rs", [200, 200, 403, 403, 403, 403]), ("system/Patient.r", [200, 403, 403, 403, 403, 403]), ("system/Patient.cu", [403, 403, 201, 200, 403, 403]),
        ("system/*.cruds", [200, 200, 201, 200, 204, 200]), ("system/Group.cruds", [403, 403, 403, 403, 403, 403]), ("system/*.read", [200, 200, 403, 403, 403, 403]),
        ("system/Patient.write", [403, 403, 201, 200, 204, 403]),
    ],
)  # fmt: skip
async def test_a_token_does_what_its_scopes_say_and_no_more(closed, scope, statuses):
    authorization = f"Bearer {(await asked(closed, scope=scope)).body['access_token']}"
    batch = {"resourceType": "Bundle", "type": "batch", "entry": []}
    requests = [
        ("GET", "Patient/p1", None), ("GET", "Patient", None), ("POST", "Patient", {"resourceType": "Patient"}), ("PUT", "Patient/p1", PATIENT),
        ("DELETE", "Patient/p1", None), ("POST", "", batch),
    ]  # fmt: skip
    replies = [await closed(m, path, body, Authorization=authorization) for m, path, body in requests]
    assert [r.status for r in replies] == statuses
    for reply in replies:
        if reply.status == 403:
            assert reply.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
            assert reply.body["issue"][0]["code"] == "forbidden"


async def test_scopes_that_are_not_registered_get_no_token(connect):
    client = await connect(credentials=Credentials(client_id="sidecar", jwks=JWKS, scope="system/Group.rs"))
    reply = await asked(client)
    assert (reply.status, reply.body) == (400, {"error": "invalid_scope"})


async def test_the_token_endpoint_alone_can_be_down(closed):
    closed.ehr.faults.token_down = True
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await asked(closed)
    assert (await closed("GET", "metadata")).status == 200
    closed.ehr.faults.clear()
    assert (await asked(closed)).status == 200
