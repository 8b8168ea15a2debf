//! How many, how fast and for how long.

use std::time::Duration;

use super::super::accounts::RuleNames;
use super::super::given::Wrong;
use super::super::key::Kind;
use super::super::reader::Reader;
use super::super::table::limits::OFFENCES;
use super::super::values;
use super::super::words::{self, Service};
use super::Surroundings;
use super::peers;
use crate::admission::{Abuse, Exception, LONGEST_REST, Limits, Offences, Rate};
use crate::policy::{Names, Policy};
use crate::server::{Overload, Threads};
use crate::service::Timeouts;

/// How many, how fast and for how long.
#[derive(Clone, Debug)]
pub struct LimitSettings {
    /// Bounds for all who connect, and their exceptions.
    pub admission: Limits,
    /// How connections are spread over threads.
    pub threads: Threads,
    /// What happens at `max_connections`.
    pub overload: Overload,
    /// Bounds of time for one connection.
    pub timeouts: Timeouts,
    /// How long a graceful stop waits; zero does not wait.
    pub stop_timeout: Duration,
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    surroundings: &Surroundings<'_>,
    policy: &Policy,
    service: Service,
) -> Option<LimitSettings> {
    let names = RuleNames {
        accounts: surroundings.accounts,
        own_user: policy.own_user(),
    };
    let first_byte_timeout = first_byte(reader, service)?;
    Some(LimitSettings {
        admission: admission(reader, &names, policy)?,
        threads: reader.one("threads", words::threads)?,
        overload: reader.one("overload", words::overload)?,
        timeouts: Timeouts {
            first_byte: first_byte_timeout,
            idle: reader.timeout("idle_timeout")?,
            connect: reader.timeout("connect_timeout")?,
            write: reader.timeout("write_timeout")?,
            half_close: reader.timeout("half_close_timeout")?,
            max_lifetime: reader.timeout("max_lifetime")?,
        },
        stop_timeout: reader.duration("stop_timeout")?,
    })
}

fn first_byte(reader: &mut Reader<'_>, service: Service) -> Option<Option<Duration>> {
    let name = "first_byte_timeout";
    let Kind::Duration { min, max } = reader.kind(name)? else {
        return None;
    };
    let given = reader.maybe(name, |text| values::duration(text, min, max));
    let time = match (given, service) {
        (Some(given), _) => given.value,
        (None, Service::Relay) => {
            reader.follows(name, "0", "clients of a relay may connect early and wait");
            Duration::ZERO
        }
        (None, Service::Echo | Service::Broker) => {
            reader.follows(name, "10s", "service is not relay");
            Duration::from_secs(10)
        }
    };
    Some((!time.is_zero()).then_some(time))
}

fn admission(reader: &mut Reader<'_>, names: &dyn Names, policy: &Policy) -> Option<Limits> {
    let max_connections: usize = number(reader, "max_connections")?;
    let per_uid = per_uid(reader, policy, max_connections)?;
    let rate_per_uid = reader.one("connection_rate_per_uid", values::rate)?;
    let exceptions = reader.many("limit", |text| exception(text, names));
    let too_many = |one: &Exception| one.connections.is_some_and(|n| n > max_connections);
    if let Some(one) = exceptions.iter().find(|one| too_many(&one.value)) {
        let text = format!("allows more than max_connections, which is {max_connections}");
        reader
            .diagnostics
            .warning(one.origin.place(), "limit", text);
    }
    let penalty = reader.duration("penalty")?;
    let mut penalty_max = reader.duration("penalty_max")?;
    if penalty_max < penalty && !reader.has_failed("penalty") {
        let shown = values::show_duration(penalty);
        if reader.is_given("penalty_max") {
            let text = format!("expected at least penalty, which is {shown}");
            reader.error("penalty_max", text);
        } else {
            reader.follows("penalty_max", shown, "never below penalty");
            penalty_max = penalty;
        }
    }
    let offences = reader.many("penalty_for", |text| values::word(text, OFFENCES));
    let offences = offences.iter().fold(Offences::NONE, |all, one| {
        match Abuse::ALL.iter().find(|abuse| abuse.code() == one.value) {
            Some(abuse) => all.with(*abuse),
            None => all.with_denials(),
        }
    });
    Some(Limits {
        max_connections,
        per_uid: Some(per_uid),
        rate_per_uid,
        denials_before_penalty: reader.number("denials_before_penalty")?,
        offences,
        penalty,
        penalty_max,
        penalty_rate: penalty_rate(reader)?,
        remembered: number(reader, "peers_remembered")?,
        exceptions: exceptions.into_iter().map(|one| one.value).collect(),
    })
}

fn penalty_rate(reader: &mut Reader<'_>) -> Option<Option<Rate>> {
    let name = "penalty_rate";
    let rate = reader.one(name, values::rate)?;
    let is_slow = |rate: Rate| rate.per() > LONGEST_REST.saturating_mul(rate.count());
    if rate.is_some_and(is_slow) {
        reader.error(
            name,
            "expected 100/1s or more: others wait behind those who are turned away",
        );
        return None;
    }
    Some(rate)
}

fn number(reader: &mut Reader<'_>, name: &str) -> Option<usize> {
    let number: u32 = reader.number(name)?;
    usize::try_from(number).ok()
}

fn per_uid(reader: &mut Reader<'_>, policy: &Policy, max_connections: usize) -> Option<usize> {
    let name = "max_connections_per_uid";
    let Kind::Number { min, max } = reader.kind(name)? else {
        return None;
    };
    if let Some(given) = reader.maybe(name, |text| values::number(text, min, max)) {
        let given = usize::try_from(given.value).ok()?;
        if given > max_connections {
            let text = format!("is more than max_connections, which is {max_connections}");
            reader.warning(name, text);
        }
        return Some(given);
    }
    let (number, why) = match policy.only_one_uid() {
        Some(_) => (max_connections, "the rules can admit only one uid"),
        None => ((max_connections / 2).max(1), "half of max_connections"),
    };
    reader.follows(name, number.to_string(), why);
    Some(number)
}

/// `RULE:connections=N,rate=N/TIME`, with either or both in any order.
fn exception(text: &str, names: &dyn Names) -> Result<Exception, Wrong> {
    let what = "RULE:connections=N,rate=N/TIME";
    let marks = [":connections=", ":rate="];
    let end = marks.iter().filter_map(|mark| text.rfind(mark)).max();
    let Some((rule, bounds)) = end.and_then(|end| text.split_at_checked(end)) else {
        return Err(Wrong::expected(what, text, 0));
    };
    let mut from = rule.len() + 1;
    let mut found = (None, None);
    for bound in bounds.get(1..).unwrap_or_default().split(',') {
        let (name, value) = bound.split_once('=').unwrap_or((bound, ""));
        let at = from + name.len() + 1;
        match name {
            "connections" if found.0.is_none() => {
                let number = values::number(value, 1, 65_535).map_err(|wrong| wrong.moved(at))?;
                found.0 = usize::try_from(number).ok();
            }
            "rate" if found.1.is_none() => {
                found.1 = Some(values::rate(value).map_err(|wrong| wrong.moved(at))?);
            }
            _ => return Err(Wrong::expected(what, text, from)),
        }
        from += bound.len() + 1;
    }
    let rule = peers::rule(rule, names)?;
    Ok(Exception {
        rule,
        connections: found.0,
        rate: found.1.flatten(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uid;
    use crate::policy::Numeric;

    #[track_caller]
    fn check(text: &str, expected: Result<(Option<usize>, Option<u32>), usize>) {
        let names = Numeric {
            own_user: Uid::ROOT,
        };
        let found = exception(text, &names)
            .map(|one| (one.connections, one.rate.map(|rate| rate.count())))
            .map_err(|wrong| wrong.caret);
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn an_exception_is_a_rule_and_its_bounds() {
        check("uid:33:connections=5", Ok((Some(5), None)));
        check(
            "uid:33,exe:/a:connections=5,rate=7/1s",
            Ok((Some(5), Some(7))),
        );
        check("uid:33:rate=7/1s,connections=5", Ok((Some(5), Some(7))));
        check("uid:33:rate=0", Ok((None, None)));
        check("uid:33", Err(0));
        check("uid:33:connections=0", Err(19));
        check("uid:33:connections=5,rate=x", Err(26));
        check("uid:33:connections=5,connections=6", Err(21));
        check("uid:x:connections=5", Err(0));
    }
}
