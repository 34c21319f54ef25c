"""The ward replays recorded stays as if they happened now: same order, same gaps, nothing from the future."""

import asyncio
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from sidecar.sandbox.moments import span
from sidecar.sandbox.shifting import moved
from sidecar.sandbox.ward import ARRIVALS, Ward, WardClock, load_ward

START = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)


def _stay(make, number, begins, hours):
    """A stay of so many hours with an observation every hour, recorded years ago."""
    begin = datetime.fromisoformat(begins)
    subject = {
        "subject": {"reference": f"Patient/p{number}"},
        "encounter": {"reference": f"Encounter/e{number}"},
    }

    def at(hour):
        return (begin + timedelta(hours=hour)).isoformat().replace("+00:00", "Z")

    patient = make.patient(
        f"p{number}",
        birthDate="1950-06-15",
        deceasedDateTime=at(hours),
        identifier=[{"system": "urn:mrn", "value": str(number)}],
    )
    encounter = make.encounter(
        f"e{number}",
        status="finished",
        subject=subject["subject"],
        period={"start": at(0), "end": at(hours)},
        hospitalization={"dischargeDisposition": {"text": "died"}},
    )
    condition = {
        "resourceType": "Condition",
        "id": f"c{number}",
        "code": {"text": "x"},
        "recordedDate": at(1),
        **subject,
    }
    observations = [make.observation(f"o{number}-{n}", effectiveDateTime=at(n), **subject) for n in range(hours)]
    # Newest first: the order of the file must not matter.
    resources = [patient, encounter, condition, *observations[::-1]]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": each} for each in resources],
    }


@pytest.fixture
def stays(tmp_path, make):
    for number, begins, hours in [(2, "2019-01-31T22:30:00+00:00", 30), (1, "2024-02-28T03:00:00+00:00", 12)]:
        (tmp_path / f"stay-{number:02}.json").write_bytes(orjson.dumps(_stay(make, number, begins, hours)))
    return load_ward(tmp_path)


@pytest.fixture
async def fast(connect):
    """An EHR and a clock in which a ward day takes about ten milliseconds."""
    clock = WardClock(START, 1e7)
    return (await connect(clock=clock.now)).ehr, clock


class _Recorder:
    """Takes writes and remembers the ward time they came at."""

    def __init__(self, clock):
        self.clock, self.written = clock, []

    async def write(self, resource):
        self.written.append((self.clock.now(), resource))
        return resource


async def test_nothing_is_charted_before_ward_time_reaches_it(stays):
    clock = WardClock(START, 1e7)
    recorder = _Recorder(clock)
    ward = Ward(stays, recorder, clock, START)
    await ward.run()
    assert len(recorder.written) == len(ward.schedule())
    for at, resource in recorder.written:
        for name in ("effectiveDateTime", "recordedDate", "deceasedDateTime"):
            assert name not in resource or span(resource[name]).low <= at
        assert span(resource.get("period", {}).get("end", "1900")).low <= at


async def test_the_schedule_is_in_order_and_the_same_every_time(stays):
    clock = WardClock(START, 1)
    first, second = (Ward(stays, _Recorder(clock), clock, START).schedule() for _ in range(2))
    assert orjson.dumps(first) == orjson.dumps(second)
    assert [due for due, _ in first] == sorted(due for due, _ in first)


async def test_stays_recorded_years_apart_overlap_on_the_ward(stays):
    clock = WardClock(START, 1)
    schedule = Ward(stays, _Recorder(clock), clock, START).schedule()
    admitted = [
        due
        for due, resource in schedule
        if resource["resourceType"] == "Encounter" and resource["status"] == "in-progress"
    ]
    assert admitted == [START, START + ARRIVALS / 2]


async def test_gaps_and_age_inside_a_stay_stay_what_they_were(stays, fast):
    ehr, clock = fast
    await Ward(stays, ehr, clock, START).run()
    for stay, number in zip(stays, (1, 2), strict=True):
        before = {
            each["id"]: span(each["effectiveDateTime"]).low for each in stay.others if "effectiveDateTime" in each
        }
        after = {
            logical_id: span(ehr.read("Observation", logical_id)["effectiveDateTime"]).low for logical_id in before
        }
        assert len({after[logical_id] - before[logical_id] for logical_id in before}) == 1
        ages = [
            (span(encounter["period"]["start"]).low - span(patient["birthDate"]).low).days
            for patient, encounter in [
                (stay.patient, stay.encounter),
                (ehr.read("Patient", f"p{number}"), ehr.read("Encounter", f"e{number}")),
            ]
        ]
        assert abs(ages[0] - ages[1]) <= 1


async def test_each_observation_is_charted_within_two_minutes_of_happening(stays):
    clock = WardClock(START, 1)
    lags = [
        due - span(resource["effectiveDateTime"]).low
        for due, resource in Ward(stays, _Recorder(clock), clock, START).schedule()
        if resource["resourceType"] == "Observation"
    ]
    assert timedelta(seconds=1) <= min(lags) <= max(lags) <= timedelta(minutes=2)
    assert len(set(lags)) > 10


async def test_at_admission_nobody_knows_how_it_ends(stays, fast):
    ehr, clock = fast
    await Ward(stays, ehr, clock, START).run()
    opened, closed = ehr.history("Encounter", "e1")
    assert (opened["status"], closed["status"]) == ("in-progress", "finished")
    assert "hospitalization" not in opened
    assert list(opened["period"]) == ["start"]
    assert "end" in closed["period"]
    alive, dead = ehr.history("Patient", "p1")
    assert "deceasedDateTime" not in alive
    assert "deceasedDateTime" in dead


async def test_a_second_lap_has_new_people_and_starts_when_the_first_is_over(stays, fast):
    ehr, clock = fast
    ward = Ward(stays, ehr, clock, START)
    await ward.run()
    await ward.run()
    assert [patient["id"] for patient in ehr.all("Patient")] == ["p1", "p2", "p1-lap1", "p2-lap1"]
    assert ehr.read("Patient", "p1-lap1")["identifier"][0]["value"] == "1-lap1"
    observation = ehr.read("Observation", "o1-3-lap1")
    assert observation["subject"]["reference"] == "Patient/p1-lap1"
    assert observation["encounter"]["reference"] == "Encounter/e1-lap1"
    assert ward.schedule(1)[0][0] > ward.schedule(0)[-1][0]


async def test_cancelled_it_stops_and_its_progress_says_where(stays, connect):
    clock = WardClock(START, 1.0)
    ehr = (await connect(clock=clock.now)).ehr
    ward = Ward(stays, ehr, clock, START)
    running = asyncio.create_task(ward.run())
    done, _ = await asyncio.wait([running], timeout=0.05)
    assert done == set()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ward.progress == (2, len(ward.schedule()))
    assert len(ehr.all("Patient")) == len(ehr.all("Encounter")) == 1


def test_the_clock_runs_at_its_speed():
    seconds = iter([100.0, 100.0, 102.5])
    clock = WardClock(START, 60, monotonic=lambda: next(seconds))
    assert clock.now() == START
    assert clock.now() == START + timedelta(seconds=150)
    with pytest.raises(ValueError, match="positive"):
        WardClock(START, 0)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("2024-02-28", "2024-03-01"),
        ("2024-02", "2024-02"),
        ("2024", "2024"),
        ("2024-02-28T23:00:00Z", "2024-03-01T11:00:00Z"),
        ("2024-02-28T23:00:00.250+02:00", "2024-03-01T09:00:00.250Z"),
    ],
)
def test_times_move_in_the_precision_they_had(text, after):
    assert moved(text, timedelta(days=1, hours=12, minutes=0)) == after


def test_a_folder_without_stays_or_with_half_a_stay_is_refused(tmp_path, make):
    with pytest.raises(ValueError, match="no stay"):
        load_ward(tmp_path)
    (tmp_path / "stay-01.json").write_bytes(orjson.dumps({"entry": [{"resource": make.patient()}]}))
    with pytest.raises(ValueError, match="stay-01"):
        load_ward(tmp_path)
