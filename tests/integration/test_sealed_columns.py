"""What lies where: every column is listed, each sealed one holds ciphertext only, and none opens in another's place."""

import base64
import contextlib
import hashlib
import sqlite3
import time
from urllib.parse import quote

import pytest

from sidecar.errors import Rejected
from sidecar.records import PatientId
from sidecar.store import Statement, Step
from sidecar.store.inventory import OPEN, SEALED, row_key
from sidecar.store.schema import metadata
from tests.harness import House, cipher_in, house, now, observation_set, reading, until

WHO, OTHER = "pat-canary-8841", "pat-canary-5227"
NAME, NUMBER = "Zebedee-Canary", "943-476-5919"


def test_every_column_is_listed_once_and_nothing_else_is():
    listed = [c.place for c in SEALED] + [f"{table}.{column}" for table, columns in OPEN.items() for column in columns]
    there = [f"{table.name}.{column.name}" for table in metadata.sorted_tables for column in table.columns]
    assert sorted(listed) == sorted(there)


def test_a_sealed_column_is_of_bytes_and_bound_to_columns_of_its_own_table():
    for sealed in SEALED:
        table = metadata.tables[sealed.table]
        assert str(table.c[sealed.column].type) == "BLOB", sealed.place
        assert {c.name for c in table.primary_key} == set(sealed.key)
        assert set(sealed.row) <= {c.name for c in table.columns}


async def two_patients(site: House) -> None:
    """Two patients with results in the chart, and a third event that waits for its EHR."""
    for who in (WHO, OTHER):
        await site.admit(who, name=[{"family": NAME}], identifier=[{"system": "urn:nhs", "value": NUMBER}])
        await site.chart(observation_set(who, now(1), c9279_1=26))
    await site.settled()
    assert len(site.risk_assessments()) == 2


async def leave_work_waiting(site: House) -> None:
    """One row of work for each patient that nobody has claimed: it is not due."""
    events, rows = site.sidecar.rooms.events, await site.rows("SELECT id FROM event ORDER BY id LIMIT 1")
    for who in (WHO, OTHER):
        key = events.patient_key(PatientId(who))
        sealed = cipher_in(site.settings.store.key_file.parent).seal(
            "work.patient", row_key(key, "later"), who.encode()
        )
        insert = Statement(
            "insert_work",
            "INSERT INTO work (patient_key, model, patient, first_heard_at, due_at, last_event_id) "
            "VALUES (:key, 'later', :sealed, 0, 9e12, :id)",
        )
        await site.sidecar.rooms.store.commit(Step(insert, [{"key": key, "sealed": sealed, "id": rows[0]["id"]}]))


def spellings(secret: str) -> set[bytes]:
    """How a value could lie somewhere: as it is, folded, digits alone, in base64 at each offset, in a URL, hashed."""
    raw = secret.encode()
    digits = "".join(c for c in secret if c.isdigit()).encode()
    found = {raw, raw.lower(), raw.upper(), quote(secret, safe="").encode(), raw[::-1]}
    found |= {digits} if len(digits) >= 6 else set()
    found |= {base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)}
    for digest in (hashlib.sha256, hashlib.sha1, hashlib.md5):
        found |= {digest(raw).digest(), digest(raw).hexdigest().encode()}
    return found


async def test_neither_the_file_nor_its_log_nor_a_backup_holds_an_identifier_in_any_spelling(tmp_path):
    async with house(tmp_path) as site:
        await two_patients(site)
        await leave_work_waiting(site)
        secrets = {NAME, NUMBER, WHO, OTHER, f"e-{WHO}", *(o["id"] for o in site.ehr.all("Observation"))}
        secrets |= {r["id"] for r in site.risk_assessments()}
        path = site.sidecar.rooms.store.path
        with (
            contextlib.closing(sqlite3.connect(path)) as live,
            contextlib.closing(sqlite3.connect(tmp_path / "copy")) as copy,
        ):
            live.backup(copy)
            for sealed in SEALED:
                sql = f"SELECT count({sealed.column}) FROM {sealed.table}"
                assert copy.execute(sql).fetchone()[0] > 0, f"nothing in {sealed.place} to look at"
        files = [*tmp_path.glob("sidecar.db*"), tmp_path / "copy"]
        contents = {file.name: file.read_bytes() for file in files if file.is_file()}
        assert {"sidecar.db", "sidecar.db-wal", "copy"} <= set(contents)
        for name, content in contents.items():
            assert not [s for s in secrets if any(spelled in content for spelled in spellings(s))], name
        planted = contents["copy"] + b"..." + NUMBER.replace("-", "").encode()
        assert any(spelled in planted for spelled in spellings(NUMBER)), "the search finds nothing at all"


async def rows_of(site: House, sealed) -> list[dict]:
    """All rows that have a value there."""
    names = ", ".join(dict.fromkeys((*sealed.key, *sealed.row, sealed.column)))
    return await site.rows(f"SELECT {names} FROM {sealed.table} WHERE {sealed.column} IS NOT NULL")


async def test_no_sealed_value_opens_in_another_row_or_another_column(tmp_path):
    async with house(tmp_path) as site:
        await two_patients(site)
        await leave_work_waiting(site)
        cipher = cipher_in(tmp_path)
        for sealed in SEALED:
            rows = await rows_of(site, sealed)
            assert len({sealed.row_key(r) for r in rows}) >= 2, sealed.place
            for row in rows:
                value = row[sealed.column]
                assert cipher.open(sealed.place, sealed.row_key(row), value)
                foreign = [r for r in rows if sealed.row_key(r) != sealed.row_key(row)]
                for other in foreign:
                    with pytest.raises(Rejected):
                        cipher.open(sealed.place, sealed.row_key(other), value)
                for place in SEALED:
                    if place.place != sealed.place:
                        with pytest.raises(Rejected):
                            cipher.open(place.place, sealed.row_key(row), value)


async def swap(site: House, sealed) -> None:
    """Exchange the values of two patients' rows, as somebody with the database and without the keys could."""
    rows = await rows_of(site, sealed)
    one = rows[0]
    two = next(r for r in rows if sealed.row_key(r) != sealed.row_key(one))
    at = " AND ".join(f"{name} = :{name}" for name in sealed.key)
    exchange = Statement("exchange", f"UPDATE {sealed.table} SET {sealed.column} = :value WHERE {at}")
    for row, value in ((one, two[sealed.column]), (two, one[sealed.column])):
        values = {name: row[name] for name in sealed.key} | {"value": value}
        await site.sidecar.rooms.store.commit(Step(exchange, [values]))


CORRECTED = [s for s in SEALED if s.table in {"assessment", "effect"}]


@pytest.mark.parametrize("sealed", CORRECTED, ids=lambda s: s.place)
async def test_a_correction_with_swapped_values_is_set_aside_and_nothing_is_written(tmp_path, sealed):
    async with house(tmp_path) as site:
        await two_patients(site)
        before = {(r["id"], r["meta"]["versionId"]) for t in ("RiskAssessment", "Observation") for r in site.ehr.all(t)}
        await swap(site, sealed)
        for who in (WHO, OTHER):
            reading_of = next(o for o in site.ehr.all("Observation") if o["id"].startswith(f"o-{who}-9279-1"))
            await site.ehr.write({**reading_of, "valueQuantity": {**reading_of["valueQuantity"], "value": 14}})
        await site.settled()
        ours = {(r["id"], r["meta"]["versionId"]) for t in ("RiskAssessment", "Observation") for r in site.ehr.all(t)}
        changed = {pair for pair in ours - before if not pair[0].startswith("o-")}
        assert changed == set()
        letters = await site.rows(
            "SELECT reason FROM event WHERE state = 'buried' UNION SELECT reason FROM delivery WHERE state = 'buried'"
        )
        assert {r["reason"] for r in letters} == {"sealed:does_not_open"}


async def test_work_and_events_with_swapped_values_are_set_aside_and_nobody_is_scored(tmp_path):
    async with house(tmp_path) as site:
        for who in (WHO, OTHER):
            await site.admit(who)
        await site.settled()
        site.ehr.faults.fail_next(10_000, status=503)
        for who in (WHO, OTHER):
            await site.chart([reading(who, "9279-1", 26, now(1))])
        await until(lambda: waiting(site))
        focus = next(s for s in SEALED if s.place == "event.focus")
        rows = await site.rows(
            "SELECT id, focus_key, focus FROM event WHERE state = 'pending' AND focus_type = 'Observation'"
        )
        exchange = Statement("exchange", "UPDATE event SET focus = :value WHERE id = :id")
        for row, value in zip(rows, [r[focus.column] for r in rows[::-1]], strict=True):
            await site.sidecar.rooms.store.commit(Step(exchange, [{"id": row["id"], "value": value}]))
        site.ehr.faults.clear()
        await site.settled()
        letters = await site.rows("SELECT reason FROM event WHERE state = 'buried'")
        assert [r["reason"] for r in letters] == ["sealed:does_not_open"] * len(rows)
        assert site.risk_assessments() == []


async def waiting(site: House) -> bool:
    sql = "SELECT count(*) AS n FROM event WHERE state = 'pending' AND focus_type = 'Observation'"
    return (await site.rows(sql))[0]["n"] >= 2


async def test_a_result_whose_row_was_given_to_another_patient_is_not_believed(tmp_path):
    async with house(tmp_path) as site:
        await two_patients(site)
        store, archive = site.sidecar.rooms.store, site.sidecar.rooms.archive
        move = Statement("move", "UPDATE assessment SET patient_key = :to WHERE patient_key = :from")
        keys = [site.sidecar.rooms.events.patient_key(PatientId(who)) for who in (WHO, OTHER)]
        assert (await archive.current(PatientId(OTHER), "news2")) is not None
        await store.commit(Step(move, [{"to": keys[1], "from": keys[0]}]))
        with pytest.raises(Rejected, match="sealed:another_patient"):
            await archive.in_force(PatientId(OTHER), "news2", time.time())


async def test_an_id_that_the_ehr_gave_to_another_patients_resource_is_not_written_over(tmp_path):
    async with house(tmp_path) as site:
        await two_patients(site)
        taken = {}
        for kind in ("RiskAssessment", "Observation"):
            ours = next(
                r
                for r in site.ehr.all(kind)
                if r["subject"]["reference"] == f"Patient/{WHO}" and not r["id"].startswith("o-")
            )
            taken[kind] = {
                **ours,
                "subject": {"reference": "Patient/somebody-else"},
                "identifier": [{"value": "theirs"}],
            }
            await site.ehr.write(taken[kind])
        await site.settled()
        reading_of = next(o for o in site.ehr.all("Observation") if o["id"].startswith(f"o-{WHO}-9279-1"))
        await site.ehr.write({**reading_of, "valueQuantity": {**reading_of["valueQuantity"], "value": 14}})
        await site.settled()
        for kind, resource in taken.items():
            assert site.ehr.read(kind, resource["id"])["subject"]["reference"] == "Patient/somebody-else"
            assert site.ehr.read(kind, resource["id"])["status"] == resource["status"]
        letters = await site.rows("SELECT reason FROM delivery WHERE state = 'buried'")
        assert [r["reason"] for r in letters] == ["another_patient"]


async def test_a_total_to_withdraw_that_is_another_patients_by_now_is_left_alone(tmp_path):
    async with house(tmp_path) as site:
        await site.admit(WHO)
        await site.chart(observation_set(WHO, now(1), c9279_1=26))
        await site.settled()
        total = next(r for r in site.ehr.all("Observation") if not r["id"].startswith("o-"))
        await site.ehr.write({**total, "subject": {"reference": "Patient/somebody-else"}})
        for code in ("8310-5", "8867-4"):
            gone = next(o for o in site.ehr.all("Observation") if o["id"].startswith(f"o-{WHO}-{code}"))
            await site.ehr.write({**gone, "status": "entered-in-error"})
        await site.settled()
        assert site.ehr.read("Observation", total["id"])["status"] == "final"
        letters = await site.rows("SELECT reason FROM delivery WHERE state = 'buried'")
        assert {r["reason"] for r in letters} == {"another_patient"}
