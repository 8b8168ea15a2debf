//! How the bounds work together, at n-1, n and n+1.

use std::time::Duration;

use super::*;
use crate::ids::{Pid, Uid};
use crate::policy::{Numeric, Rule};

fn user(uid: u32) -> Subject {
    Subject::user(Uid::from_raw(uid).unwrap())
}

fn process(uid: u32, pid: i32) -> Subject {
    user(uid).process(ProcessKey {
        pid: Pid::from_raw(pid).unwrap(),
        identity: 1,
    })
}

fn exception(rule: &str, connections: Option<usize>) -> Exception {
    Exception {
        rule: Rule::parse(
            rule,
            &Numeric {
                own_user: Uid::ROOT,
            },
        )
        .unwrap(),
        connections,
        rate: None,
    }
}

fn admission(change: impl FnOnce(&mut Limits)) -> Arc<Admission> {
    let mut limits = Limits::default();
    change(&mut limits);
    Arc::new(Admission::new(limits))
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

#[test]
fn tickets_come_back_when_dropped() {
    let (admission, now) = (
        admission(|limits| limits.max_connections = 3),
        Instant::now(),
    );
    let mut held: Vec<_> = (0..3)
        .map(|uid| admission.enter(&user(uid), now).unwrap())
        .collect();
    assert_eq!(
        admission.enter(&user(9), now).unwrap_err().code(),
        "server_full"
    );
    held.pop();
    held.push(admission.enter(&user(9), now).unwrap());
    assert_eq!(admission.open(), 3);
    held.clear();
    assert_eq!(
        (admission.open(), admission.snapshot(now).busiest.len()),
        (0, 0)
    );
}

#[test]
fn who_is_examined_counts_for_his_users_share() {
    use crate::peer::{Credentials, Fact, IdMaps};
    let (admission, now) = (
        admission(|limits| {
            limits.per_uid = Some(3);
            limits.exceptions = vec![exception("uid:7", Some(1))];
        }),
        Instant::now(),
    );
    let nobody = Facts::of(Fact::Known(Credentials::NONE));
    let seven = Credentials::from_raw(1, 7, 7, IdMaps::FULL);
    let seven = Facts::of(Fact::Known(seven));
    let open = admission.enter(&user(1), now).unwrap();
    let mut examined: Vec<_> = (0..2)
        .map(|_| admission.examine(&user(1), &nobody, false, now).unwrap())
        .collect();
    let refused = |uid, facts| {
        admission
            .examine(&user(uid), facts, false, now)
            .unwrap_err()
    };
    assert_eq!(refused(1, &nobody).code(), "uid_connections");
    // One who is admitted still finds his place, and gives back what he took before.
    let admitted = admission.enter(&user(1), now).unwrap();
    examined.pop();
    assert_eq!(refused(1, &nobody).code(), "uid_connections");
    drop((open, admitted));
    examined.extend((0..2).map(|_| admission.examine(&user(1), &nobody, false, now).unwrap()));
    assert_eq!(refused(1, &nobody).code(), "uid_connections");
    // Others have shares of their own, and exceptions hold.
    examined.push(admission.examine(&user(2), &nobody, false, now).unwrap());
    examined.push(admission.examine(&user(7), &seven, false, now).unwrap());
    assert_eq!(refused(7, &seven).code(), "uid_connections");
    assert_eq!(admission.open(), 0);
    examined.clear();
    drop(admission.examine(&user(1), &nobody, false, now).unwrap());
}

/// Facts of a user of whose process nothing is known yet.
fn unread(uid: u32) -> Facts {
    use crate::peer::{Credentials, Fact, IdMaps};
    let credentials = Credentials::from_raw(1, uid, uid, IdMaps::FULL);
    Facts::of(Fact::Known(credentials))
}

/// How many of a user are examined at once, with this many open under `per_uid`.
#[track_caller]
fn check_examined(exceptions: &[Exception], per_uid: usize, open: usize, expected: usize) {
    let (admission, now) = (
        admission(|limits| {
            limits.per_uid = Some(per_uid);
            limits.exceptions = exceptions.to_vec();
        }),
        Instant::now(),
    );
    let open: Vec<_> = (0..open)
        .map(|_| admission.enter(&user(1), now).unwrap())
        .collect();
    let mut examined = Vec::new();
    let refusal = loop {
        match admission.examine(&user(1), &unread(1), false, now) {
            Ok(one) => examined.push(one),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(examined.len(), expected);
    assert_eq!(
        refusal.reason,
        RefusalReason::UidConnections { limit: per_uid }
    );
    drop((open, examined));
    assert_eq!(admission.snapshot(now).busiest.len(), 0);
}

#[test]
fn who_may_yet_be_excepted_is_examined_though_the_share_is_used_up() {
    let batch = |connections| exception("exe:/usr/bin/batch", connections);
    check_examined(&[batch(Some(50))], 10, 10, 50);
    check_examined(&[batch(Some(50))], 10, 0, 60);
    check_examined(&[batch(Some(50)), exception("name:x", Some(5))], 10, 10, 55);
    check_examined(&[batch(Some(50))], 0, 0, 50);
    // Such as can't hold for this one, or are not reached, lend nothing.
    check_examined(&[exception("uid:2,name:x", Some(50))], 10, 10, 0);
    let reached = [exception("uid:1", Some(10)), batch(Some(50))];
    check_examined(&reached, 10, 10, 10);
}

#[test]
fn of_the_places_beyond_the_share_half_stay_for_others() {
    let endless = || exception("exe:/usr/bin/batch", None);
    let large = exception("exe:/usr/bin/batch", Some(150));
    check_examined(&[endless()], 100, 100, 50);
    check_examined(&[large], 100, 100, 50);
    check_examined(&[endless()], 100, 0, 150);
    check_examined(&[endless()], 199, 199, 1);
}

#[test]
fn what_an_exception_has_open_is_no_more_left_of_it() {
    let (admission, now) = (
        admission(|limits| {
            limits.per_uid = Some(1);
            limits.exceptions = vec![exception("name:x", Some(3))];
        }),
        Instant::now(),
    );
    let examine = || admission.examine(&user(1), &unread(1), false, now);
    let _ordinary = admission.enter(&user(1), now).unwrap();
    let excepted = || admission.enter_excepted(&user(1), Some(0), now).unwrap();
    let mut held = vec![excepted(), excepted()];
    let one = examine().unwrap();
    assert_eq!(examine().unwrap_err().code(), "uid_connections");
    drop(one);
    held.push(excepted());
    assert_eq!(examine().unwrap_err().code(), "uid_connections");
    held.pop();
    drop(examine().unwrap());
    // What a reload leaves open beyond the share is not taken from exceptions.
    admission.set_limits(Limits {
        per_uid: Some(0),
        ..(*admission.limits()).clone()
    });
    drop(examine().unwrap());
}

#[test]
fn who_enters_is_examined_no_more() {
    let (admission, now) = (admission(|limits| limits.per_uid = Some(2)), Instant::now());
    let examine = || admission.examine(&user(1), &unread(1), false, now);
    let mut first = Some(examine().unwrap());
    let ticket = admission
        .enter_known(&user(1), &unread(1), &mut first, false, now)
        .unwrap();
    assert!(first.is_none());
    let mut second = Some(examine().unwrap());
    assert_eq!(examine().unwrap_err().code(), "uid_connections");
    // Who finds no place is examined still.
    let other = admission.enter(&user(1), now).unwrap();
    let refused = admission.enter_known(&user(1), &unread(1), &mut second, false, now);
    assert_eq!(refused.unwrap_err().code(), "uid_connections");
    assert!(second.is_some());
    drop((ticket, other));
    let third = examine().unwrap();
    assert_eq!(examine().unwrap_err().code(), "uid_connections");
    drop((second, third));
    let _both = [examine().unwrap(), examine().unwrap()];
    assert_eq!(examine().unwrap_err().code(), "uid_connections");
}

#[test]
fn where_newcomers_wait_for_places_nobody_is_refused_for_want_of_one() {
    let (admission, now) = (
        admission(|limits| {
            limits.max_connections = 2;
            limits.per_uid = Some(2);
        }),
        Instant::now(),
    );
    let examine = |waits| admission.examine(&user(1), &unread(1), waits, now);
    let first = admission.enter(&user(1), now).unwrap();
    // Two threads that accepted at the same moment.
    let _both = [examine(true).unwrap(), examine(true).unwrap()];
    let second = admission.enter(&user(1), now).unwrap();
    let waits = examine(true).unwrap_err();
    assert_eq!((waits.code(), waits.told), ("server_full", Told::Later));
    assert!(!admission.has_passed_over());
    // Who does not wait is told by the bound of the server, once he is known.
    drop(examine(false).unwrap());
    drop((first, second));
    drop(examine(true).unwrap());
}

#[test]
fn a_users_share_is_his_own() {
    let (admission, now) = (admission(|limits| limits.per_uid = Some(2)), Instant::now());
    let _first = admission.enter(&user(1), now).unwrap();
    let second = admission.enter(&process(1, 50), now).unwrap();
    assert_eq!(
        admission.enter(&user(1), now).unwrap_err().code(),
        "uid_connections"
    );
    let _other = admission.enter(&user(2), now).unwrap();
    drop(second);
    let _third = admission.enter(&user(1), now).unwrap();
}

#[test]
fn a_rate_lets_so_many_in_at_once_and_then_at_its_pace() {
    let admission = admission(|limits| limits.rate_per_uid = Rate::new(5, seconds(1)));
    let start = Instant::now();
    let enter = |at: u64| {
        admission
            .enter(&user(1), start + Duration::from_millis(at))
            .is_ok()
    };
    assert!((0..5).all(|_| enter(0)));
    assert!(!enter(0));
    assert!(!enter(199));
    assert!(enter(200));
    assert!(!enter(201));
    assert!((0..5).all(|_| enter(1_300)));
    assert!(!enter(1_300));
    assert!(admission.enter(&user(2), start).is_ok());
}

#[test]
fn a_rate_admits_no_more_than_its_count_plus_its_pace() {
    let admission = admission(|limits| limits.rate_per_uid = Rate::new(50, seconds(1)));
    let start = Instant::now();
    let times = (0..10_000).map(|milli| start + Duration::from_millis(milli));
    let admitted = times
        .filter(|now| admission.enter(&user(1), *now).is_ok())
        .count();
    assert_eq!(admitted, 50 + 499);
}

#[test]
fn denials_lead_to_a_penalty_for_this_user_alone() {
    let (admission, now) = (admission(|_| ()), Instant::now());
    for _ in 0..4 {
        assert_eq!(admission.denied(&user(1), now), None);
    }
    assert!(admission.greet(&user(1), now).is_ok());
    let begun = admission.denied(&user(1), now).unwrap();
    assert_eq!((begun.length, begun.process), (seconds(60), false));
    assert_eq!(
        admission.greet(&user(1), now).unwrap_err().code(),
        "penalty"
    );
    assert_eq!(
        admission.enter(&user(1), now).unwrap_err().code(),
        "penalty"
    );
    assert!(admission.greet(&user(2), now).is_ok());
    assert!(admission.greet(&user(1), now + seconds(60)).is_ok());
    assert_eq!(admission.snapshot(now).under_penalty, 1);
}

#[test]
fn one_process_does_not_lock_out_another_of_its_user() {
    let (admission, now) = (admission(|_| ()), Instant::now());
    assert!((0..5).any(|_| admission.denied(&process(1, 666), now).is_some()));
    assert!(admission.greet(&process(1, 666), now).is_err());
    assert!(admission.greet(&process(1, 700), now).is_ok());
    assert!(admission.enter(&process(1, 700), now).is_ok());
    let later = ProcessKey {
        pid: Pid::from_raw(666).unwrap(),
        identity: 2,
    };
    assert!(
        admission.greet(&user(1).process(later), now).is_ok(),
        "a later process, same number"
    );
}

#[test]
fn a_penalty_of_the_user_holds_for_each_of_his_processes() {
    let (admission, now) = (admission(|_| ()), Instant::now());
    assert!((0..5).any(|_| admission.denied(&user(1), now).is_some()));
    assert!(admission.greet(&process(1, 700), now).is_err());
}

#[test]
fn exceptions_have_bounds_and_counts_of_their_own() {
    let busy = || exception("uid:1", Some(3));
    let admission = admission(|limits| {
        limits.per_uid = Some(1);
        limits.rate_per_uid = Rate::new(1, seconds(60));
        limits.exceptions = vec![busy()];
    });
    let now = Instant::now();
    let enter = |exception| admission.enter_excepted(&user(1), exception, now);
    let _normal = enter(None).unwrap();
    assert_eq!(enter(None).unwrap_err().code(), "uid_connections");
    let held: Vec<_> = (0..3).map(|_| enter(Some(0)).unwrap()).collect();
    assert_eq!(enter(Some(0)).unwrap_err().code(), "uid_connections");
    assert_eq!(
        enter(Some(1)).unwrap_err().code(),
        "uid_connections",
        "no such exception"
    );
    // After a reload it has another number, and is the same.
    let other = exception("uid:2", None);
    let exceptions = vec![other, busy()];
    admission.set_limits(Limits {
        exceptions,
        ..(*admission.limits()).clone()
    });
    assert_eq!(enter(Some(1)).unwrap_err().code(), "uid_connections");
    drop(held);
    assert!(enter(Some(1)).is_ok());
}

#[test]
fn an_exception_is_no_way_around_a_penalty() {
    let one = exception("any", None);
    let (admission, now) = (
        admission(|limits| limits.exceptions = vec![one]),
        Instant::now(),
    );
    assert!((0..5).any(|_| admission.denied(&user(1), now).is_some()));
    let refused = admission
        .enter_excepted(&user(1), Some(0), now)
        .unwrap_err();
    assert_eq!(refused.code(), "penalty");
}

#[test]
fn new_limits_hold_for_newcomers_and_keep_what_is_open() {
    let (admission, now) = (
        admission(|limits| limits.max_connections = 4),
        Instant::now(),
    );
    let held: Vec<_> = (0..4)
        .map(|_| admission.enter(&user(1), now).unwrap())
        .collect();
    admission.set_limits(Limits {
        max_connections: 2,
        ..Limits::default()
    });
    assert_eq!(admission.open(), 4);
    assert!(admission.enter(&user(1), now).is_err());
    drop(held);
    assert_eq!(admission.open(), 0);
    assert!(admission.enter(&user(1), now).is_ok());
}

#[test]
fn a_flood_of_refusals_is_told_once_a_second_and_none_is_lost() {
    let (admission, start) = (admission(|limits| limits.per_uid = Some(0)), Instant::now());
    let (mut told, mut lines) = (0, 0);
    for milli in 0..3_500 {
        let now = start + Duration::from_millis(milli);
        if let Some(earlier) = admission.enter(&user(1), now).unwrap_err().report() {
            (told, lines) = (told + earlier + 1, lines + 1);
        }
    }
    assert_eq!((told, lines), (3_001, 4));
    assert!(
        admission
            .sweep(start + Duration::from_millis(3_600), false)
            .is_empty()
    );
    let rest = admission.sweep(start + seconds(5), false);
    assert_eq!(rest.iter().map(|one| one.number).collect::<Vec<_>>(), [499]);
    assert!(!admission.has_passed_over());
}

#[test]
fn what_a_penalty_refused_is_told_when_it_is_over() {
    let (admission, now) = (admission(|_| ()), Instant::now());
    assert!((0..5).any(|_| admission.denied(&process(1, 7), now).is_some()));
    for _ in 0..1_000 {
        let refusal = admission.greet(&process(1, 7), now).unwrap_err();
        assert_eq!(refusal.report(), None);
    }
    assert!(admission.sweep(now + seconds(59), false).is_empty());
    assert!(admission.has_passed_over());
    let told = admission.sweep(now + seconds(61), false);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].number, told[0].reason.code()), (1_000, "penalty"));
    assert!(!admission.has_passed_over());
}

#[test]
fn abuse_is_counted_always_and_penalised_by_option() {
    let (without, now) = (
        admission(|limits| limits.offences = Offences::NONE),
        Instant::now(),
    );
    let noticed: Vec<_> = (0..50)
        .map(|_| without.abused(&user(1), Abuse::Protocol, now))
        .collect();
    assert_eq!(
        noticed.iter().filter(|one| one.pattern.is_some()).count(),
        1
    );
    assert!(noticed.iter().all(|one| one.penalty.is_none()));
    assert_eq!(without.snapshot(now).abuse[Abuse::Protocol.index()], 50);
    let with = admission(|limits| limits.offences = Offences::NONE.with(Abuse::SlowSender));
    assert!((0..5).any(|_| {
        with.abused(&user(1), Abuse::SlowSender, now)
            .penalty
            .is_some()
    }));
    assert!(with.greet(&user(1), now).is_err());
}

#[test]
fn ten_thousand_users_leave_no_more_than_is_remembered() {
    let (admission, now) = (admission(|limits| limits.remembered = 500), Instant::now());
    for uid in 0..10_000 {
        let _ = admission.denied(&user(uid), now);
        drop(admission.enter(&user(uid), now));
    }
    assert_eq!(admission.snapshot(now).accounts, 500);
}

#[test]
fn many_threads_lose_no_count() {
    let admission = admission(|limits| limits.max_connections = 1_000);
    std::thread::scope(|scope| {
        for uid in 0..4 {
            let admission = &admission;
            scope.spawn(move || {
                for _ in 0..2_000 {
                    let _ticket = admission.enter(&user(uid), Instant::now());
                    let _ = admission.denied(&user(100 + uid), Instant::now());
                }
            });
        }
    });
    assert_eq!(admission.open(), 0);
}
