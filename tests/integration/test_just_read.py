"""What was stored a moment ago is not opened again: it is what would be found."""

from sidecar.evidence import Archive
from sidecar.explanation import rationale, reason_in_words
from sidecar.store import Statement, load_keys
from sidecar.writeback.render import Links, risk_assessment
from tests.harness import House, house, now, observation_set

IDENTITIES = "SELECT DISTINCT identity FROM assessment"


def rendered(stored, manifest):
    a = stored.conclusion.assessment
    reasons = tuple(reason_in_words(r, manifest, a.vector.features) for r in a.reasons)
    links = Links(stored.identity, stored.status, "Device/d", rationale(a, manifest), reasons)
    return risk_assessment(stored.conclusion, manifest, links)


async def kept(found: House) -> None:
    """Each stored result, as the one who stored it still knows it, reads as whoever opens it finds it."""
    rooms = found.sidecar.rooms
    stranger = Archive(rooms.store, load_keys(found.settings.store.key_file))
    rows = await rooms.store.read(Statement("identities", IDENTITIES))
    assert rows
    for row in rows:
        known, opened = await rooms.archive.latest(row["identity"]), await stranger.latest(row["identity"])
        assert known is not None
        assert opened is not None
        manifest = rooms.models[known.conclusion.assessment.model].loaded.manifest
        assert rendered(known, manifest) == rendered(opened, manifest)
        assert known.conclusion.evidence == opened.conclusion.evidence
        assert (known.id, known.revision, known.status, known.arm, known.content) == (
            opened.id, opened.revision, opened.status, opened.arm, opened.content,
        )  # fmt: skip


async def test_a_result_that_was_just_stored_is_what_is_stored(tmp_path):
    """In a zone with a clock change, with a missing and an implausible reading, and without a write that asks first."""
    async with house(tmp_path, promoted=False, facility='time_zone = "Europe/London"') as found:
        for key, changes in (("p1", {}), ("p2", {"c8310_5": None}), ("p3", {"c8867_4": 900.0})):
            await found.admit(key)
            await found.chart(observation_set(key, now(5), **changes))
        await found.settled()
        await kept(found)
