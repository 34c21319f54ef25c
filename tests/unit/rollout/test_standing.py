"""What a log comes to, and what it does not let be appended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rollout import (
    SETTINGS,
    Ask,
    Entry,
    Standings,
    Version,
    What,
    asked_by_settings,
    stand,
    stood,
    why_not,
)

V1, V2, V3 = (Version(f"{n}.0.0", str(n) * 64) for n in (1, 2, 3))


def ask(what: What, version: Version | None = None, **more) -> Ask:
    return Ask(what, more.pop("model", "m"), "Dr A", "because", version, **more)


def log(*asks: Ask) -> list[Entry]:
    return [Entry(n, float(n), each) for n, each in enumerate(asks, 1)]


def after(*asks: Ask):
    return stand(log(*asks)).of("m")


def test_a_version_in_shadow_speaks_for_the_model_until_one_is_promoted():
    shadow = after(ask(What.SHADOW, V1))
    assert (shadow.champion, shadow.main, shadow.beside) == (None, V1, ())
    promoted = after(ask(What.SHADOW, V1), ask(What.SHADOW, V2), ask(What.PROMOTE, V2))
    assert (promoted.champion, promoted.main, promoted.beside) == (V2, V2, (V1,))


def test_a_rollback_ends_the_canary_first_and_then_returns_to_the_champion_before():
    asks = [ask(What.PROMOTE, V1), ask(What.PROMOTE, V2), ask(What.CANARY, V3, percent=5.0)]
    assert after(*asks).canary.version == V3
    once = after(*asks, ask(What.ROLLBACK))
    assert (once.champion, once.canary, once.withdrawn) == (V2, None, {V3.digest})
    twice = after(*asks, ask(What.ROLLBACK), ask(What.ROLLBACK))
    assert (twice.champion, twice.withdrawn) == (V1, {V2.digest, V3.digest})


def test_a_rollback_does_not_bring_back_a_version_that_was_taken_back_as_a_canary_since_it_was_champion():
    asks = [ask(What.PROMOTE, V1), ask(What.PROMOTE, V3), ask(What.PROMOTE, V2), ask(What.CANARY, V3, percent=5.0)]
    standing = after(*asks, ask(What.ROLLBACK), ask(What.ROLLBACK))
    assert (standing.champion, standing.withdrawn) == (V1, {V2.digest, V3.digest})


def test_an_earlier_champion_that_ran_in_shadow_again_leaves_it_when_a_rollback_returns_to_it():
    standing = after(ask(What.PROMOTE, V1), ask(What.PROMOTE, V2), ask(What.SHADOW, V1), ask(What.ROLLBACK))
    assert (standing.champion, standing.shadows) == (V1, ())


def test_what_a_rollback_may_bring_back_is_kept_warm():
    standing = after(ask(What.PROMOTE, V1), ask(What.PROMOTE, V2), ask(What.SHADOW, V3))
    assert set(standing.warm) == {V1, V2, V3}
    assert set(standing.runs) == {V2, V3}


def test_a_canary_that_goes_back_to_shadow_writes_no_more_and_what_it_said_is_withdrawn():
    standing = after(ask(What.PROMOTE, V1), ask(What.CANARY, V2, percent=5.0), ask(What.SHADOW, V2))
    assert (standing.canary, standing.shadows, standing.withdrawn) == (None, (V2,), {V2.digest})


def test_the_first_version_can_be_a_canary_and_goes_on_in_shadow_for_everybody_else():
    standing = after(ask(What.SHADOW, V1), ask(What.CANARY, V1, percent=5.0))
    assert (standing.champion, standing.main, standing.canary.version) == (None, V1, V1)


@pytest.mark.parametrize(
    ("before", "asked", "why"),
    [
        ([], ask(What.ROLLBACK), "no canary and no earlier champion"),
        ([ask(What.PROMOTE, V1)], ask(What.ROLLBACK), "no canary and no earlier champion"),
        ([ask(What.PROMOTE, V1)], ask(What.PROMOTE, V1), "champion already"),
        ([ask(What.PROMOTE, V1)], ask(What.SHADOW, V1), "is the champion"),
        ([ask(What.PROMOTE, V1)], ask(What.CANARY, V1, percent=5.0), "champion already"),
        ([ask(What.PROMOTE, V1)], ask(What.CANARY, V2, percent=0.0), "more than 0"),
        ([ask(What.PROMOTE, V1)], ask(What.CANARY, V2, percent=101.0), "more than 0"),
        ([ask(What.PROMOTE, V1)], ask(What.CANARY, V2, percent=5.0, by="ward"), "by patient or by unit"),
        ([ask(What.SHADOW, V1)], ask(What.SUSPEND), "nothing of it writes"),
        ([ask(What.SHADOW, V1)], ask(What.RESUME), "not suspended"),
        ([ask(What.SHADOW, V1)], ask(What.END_SHADOW, V1), "alone speaks"),
        ([ask(What.SHADOW, V1)], ask(What.PROMOTE, Version("1.0.0", "f" * 64)), "another digest"),
        ([ask(What.SHADOW, V1)], ask(What.PROMOTE), "must be named"),
        ([ask(What.STOP_WRITES, model="")], ask(What.STOP_WRITES, model=""), "stopped already"),
        ([], ask(What.ALLOW_WRITES, model=""), "allowed already"),
        ([], Ask(What.STOP_WRITES, "", " ", "because"), "who and why"),
        ([], Ask(What.STOP_WRITES, "", "Dr A", ""), "who and why"),
    ],
)
def test_what_makes_no_sense_as_things_stand_is_refused_with_the_reason(before, asked, why):
    assert why in why_not(asked, stand(log(*before)))


def test_how_things_stood_is_what_the_entries_until_then_come_to():
    entries = log(ask(What.SHADOW, V1), ask(What.PROMOTE, V1), ask(What.PROMOTE, V2), ask(What.ROLLBACK))
    then = [stood(entries, at).of("m").champion for at in (0.5, 1.5, 2.0, 2.5, 3.0, 4.0)]
    assert then == [None, None, V1, V1, V2, V1]


def test_a_stop_concerns_all_models_and_one_model_no_other():
    standings = stand(log(ask(What.PROMOTE, V1), ask(What.PROMOTE, V2, model="n"), ask(What.SUSPEND)))
    assert standings.of("m").suspended
    assert not standings.of("n").suspended
    assert stand(log(ask(What.STOP_WRITES, model=""))).stopped
    assert not stand(log(ask(What.STOP_WRITES, model=""), ask(What.ALLOW_WRITES, model=""))).stopped


ASKS = st.one_of(
    st.builds(ask, st.sampled_from([What.SHADOW, What.END_SHADOW, What.PROMOTE]), st.sampled_from([V1, V2, V3])),
    st.builds(lambda v, p: ask(What.CANARY, v, percent=p), st.sampled_from([V1, V2, V3]), st.floats(1, 100)),
    st.builds(ask, st.sampled_from([What.ROLLBACK, What.SUSPEND, What.RESUME])),
)


@given(st.lists(ASKS, max_size=30))
def test_whatever_is_allowed_one_version_speaks_for_the_model_and_none_has_two_roles(asks):
    made: list[Ask] = [ask(What.SHADOW, V1)]
    for each in asks:
        if why_not(each, stand(log(*made))) is None:
            made.append(each)
        now = stand(log(*made)).of("m")
        assert now.main is not None
        assert now.champion not in now.shadows
        if now.canary is not None:
            assert now.canary.version != now.champion
            assert now.canary.version.digest not in now.withdrawn
        if now.champion is not None:
            assert now.champion.digest not in now.withdrawn
        assert len(set(now.shadows)) == len(now.shadows)
        assert set(now.runs) <= set(now.warm) <= set(now.known)


NAMED = ("Dr A", "validated")


def recorded(*steps: tuple[Version, tuple[str, str] | None], log_before: tuple[Ask, ...] = ()) -> list[Ask]:
    """What starts with these settings append, one after the other."""
    made = list(log_before)
    for version, promoted in steps:
        while (each := asked_by_settings("m", version, promoted, stand(log(*made)).of("m"))) is not None:
            assert why_not(each, stand(log(*made))) is None
            made.append(each)
    return made[len(log_before) :]


def test_a_model_that_nobody_promoted_begins_in_shadow_and_a_second_start_says_nothing_new():
    assert [a.what for a in recorded((V1, None), (V1, None))] == [What.SHADOW]


def test_a_promotion_in_the_settings_is_the_first_transition_with_who_and_why():
    (first,) = recorded((V1, NAMED), (V1, NAMED))
    assert (first.what, first.who, first.why, first.version) == (What.PROMOTE, *NAMED, V1)
    assert (first.evidence, bool(first.override)) == (SETTINGS, True)


def test_a_promotion_taken_out_of_the_settings_suspends_and_one_put_back_resumes():
    done = recorded((V1, NAMED), (V1, None), (V1, NAMED))
    assert [a.what for a in done] == [What.PROMOTE, What.SUSPEND, What.RESUME]


def test_what_a_person_decided_is_not_undone_by_a_restart():
    decided = (ask(What.PROMOTE, V1), ask(What.PROMOTE, V2), ask(What.ROLLBACK))
    assert recorded((V2, NAMED), log_before=decided) == []
    assert recorded((V1, None), log_before=decided) == []
    assert recorded((V1, NAMED), log_before=(ask(What.PROMOTE, V1), ask(What.SUSPEND))) == []


def test_a_rollback_that_leaves_nobody_who_writes_is_not_undone_by_a_promotion_in_the_settings():
    decided = (ask(What.SHADOW, V1), ask(What.CANARY, V1, percent=5.0))
    for end in (ask(What.ROLLBACK), ask(What.SHADOW, V1)):
        assert recorded((V1, NAMED), log_before=(*decided, end)) == []
        assert What.PROMOTE not in {each.what for each in recorded((V2, NAMED), log_before=(*decided, end))}


def test_the_settings_are_followed_while_people_have_only_let_versions_run_in_shadow():
    decided = (ask(What.SHADOW, V1), ask(What.SHADOW, V2), ask(What.END_SHADOW, V2))
    assert [each.what for each in recorded((V1, NAMED), log_before=decided)] == [What.PROMOTE]


def test_a_new_version_in_the_folder_begins_in_shadow_beside_the_champion():
    (begun,) = recorded((V2, None), log_before=(ask(What.PROMOTE, V1),))
    assert (begun.what, begun.version) == (What.SHADOW, V2)


def test_nothing_stands_in_an_empty_log():
    assert stand([]) == Standings()
    assert stand([]).of("m").main is None
