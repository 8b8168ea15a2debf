//! What an admitted peer gets.

use super::super::accounts::RuleNames;
use super::super::endpoint;
use super::super::given::Wrong;
use super::super::reader::{Reader, Sourced};
use super::super::values;
use super::super::words::{self, Service};
use super::peers;
use super::{SocketSettings, Surroundings};
use crate::frame::{FrameLimit, Pattern};
use crate::ids::Uid;
use crate::listener::Address;
use crate::policy::Names;
use crate::service::broker::{Action, Limits, Permit, Permits};
use crate::service::relay::{Identity, Upstream};

/// What an admitted peer gets.
#[derive(Clone, Debug)]
pub struct ServiceSettings {
    /// Which service.
    pub service: Service,
    /// Where the relay connects to, in order of preference.
    pub upstreams: Vec<Upstream>,
    /// As whom it connects.
    pub upstream_identity: Identity,
    /// Whether it sends a PROXY header first.
    pub proxy_protocol: bool,
    /// How many descriptors it forwards with one message, 0 to 253.
    pub relay_descriptors: u32,
    /// The broker's bounds.
    pub broker: Limits,
    /// Who may do what with the broker.
    pub permits: Permits,
}

const RELAY_OPTIONS: &[&str] = &[
    "upstream",
    "upstream_identity",
    "proxy_protocol",
    "relay_descriptors",
];

const BROKER_OPTIONS: &[&str] = &[
    "max_frame_size",
    "broker_pending",
    "broker_pending_per_uid",
    "broker_subscriptions",
    "broker_requests",
    "request_timeout",
    "permit",
];

pub(super) fn read(
    reader: &mut Reader<'_>,
    surroundings: &Surroundings<'_>,
    own_user: Uid,
    socket: &SocketSettings,
) -> Option<ServiceSettings> {
    let service = reader.one("service", Service::parse)?;
    let upstreams = reader.many("upstream", endpoint::upstream);
    let upstream_identity = reader.one("upstream_identity", words::identity)?;
    let proxy_protocol = reader.one("proxy_protocol", words::proxy)?;
    let relay_descriptors = reader.number("relay_descriptors")?;
    let names = RuleNames {
        accounts: surroundings.accounts,
        own_user,
    };
    let (broker, permits) = broker(reader, &names)?;
    let why = format!("service={}", service.word());
    if service == Service::Relay {
        check_relay(
            reader,
            &upstreams,
            upstream_identity,
            relay_descriptors,
            socket,
        );
    } else {
        RELAY_OPTIONS
            .iter()
            .for_each(|name| reader.idle(name, &why));
        reader.idle("connect_timeout", &why);
    }
    if service != Service::Broker {
        BROKER_OPTIONS
            .iter()
            .for_each(|name| reader.idle(name, &why));
    }
    Some(ServiceSettings {
        service,
        upstreams: upstreams.into_iter().map(|one| one.value).collect(),
        upstream_identity,
        proxy_protocol,
        relay_descriptors,
        broker,
        permits,
    })
}

fn check_relay(
    reader: &mut Reader<'_>,
    upstreams: &[Sourced<Upstream>],
    identity: Identity,
    descriptors: u32,
    socket: &SocketSettings,
) {
    if upstreams.is_empty() && !reader.is_given("upstream") {
        reader.error(
            "service",
            "relay needs upstream=unix:/path or upstream=tcp:host:port",
        );
    }
    let over_internet = matches!(socket.address, Address::Inet(_));
    if identity == Identity::Peer && over_internet {
        reader.error(
            "upstream_identity",
            "peer needs domain=AF_UNIX: other peers have no user",
        );
    }
    if descriptors > 0 && over_internet {
        reader.error("relay_descriptors", "needs domain=AF_UNIX");
    }
    for upstream in upstreams {
        if upstream.value.to_string() == format!("unix:{}", socket.address) {
            let text = "is the server's own socket: it would relay to itself";
            reader
                .diagnostics
                .error(upstream.origin.place(), "upstream", text);
        }
        if upstream.value.is_unix() {
            continue;
        }
        let place = upstream.origin.place();
        if identity == Identity::Peer {
            let text = "upstream_identity=peer needs unix:/path: TCP carries no identity";
            reader.diagnostics.error(place.clone(), "upstream", text);
        }
        if descriptors > 0 {
            let text = "relay_descriptors needs unix:/path: TCP carries no descriptors";
            reader.diagnostics.error(place, "upstream", text);
        }
    }
}

fn broker(reader: &mut Reader<'_>, names: &dyn Names) -> Option<(Limits, Permits)> {
    let max_frame_size = reader.size("max_frame_size")?;
    let pending = reader.size("broker_pending")?;
    let pending_per_uid = reader.size("broker_pending_per_uid")?;
    let failed = ["max_frame_size", "broker_pending"]
        .iter()
        .any(|name| reader.has_failed(name));
    if pending < max_frame_size && !failed {
        let shown = values::show_size(max_frame_size);
        let text = format!("expected at least max_frame_size, which is {shown}");
        let option = if reader.is_given("broker_pending") {
            "broker_pending"
        } else {
            "max_frame_size"
        };
        reader.error(option, text_for(option, text, pending));
    }
    if pending_per_uid < pending {
        let option = match reader.is_given("broker_pending_per_uid") {
            true => "broker_pending_per_uid",
            false => "broker_pending",
        };
        let text = "broker_pending_per_uid is less than broker_pending, which no connection can \
                    reach therefore";
        reader.warning(option, text);
    }
    let permits = reader.many("permit", |text| permits(text, names));
    let size = |bytes: u64| usize::try_from(bytes).ok();
    let count = |reader: &mut Reader<'_>, name| {
        let number: u32 = reader.number(name)?;
        usize::try_from(number).ok()
    };
    let limits = Limits {
        frame: FrameLimit::new(u32::try_from(max_frame_size).ok()?)?,
        pending_bytes: size(pending)?,
        pending_bytes_per_uid: size(pending_per_uid)?,
        subscriptions: count(reader, "broker_subscriptions")?,
        requests: count(reader, "broker_requests")?,
        request_timeout: reader.duration("request_timeout")?,
        ..Limits::default()
    };
    let permits = permits.into_iter().flat_map(|one| one.value).collect();
    Some((limits, Permits::new(permits)))
}

/// The sentence from the other side, where the other option was given.
fn text_for(option: &str, text: String, pending: u64) -> String {
    match option {
        "max_frame_size" => {
            format!(
                "expected at most broker_pending, which is {}",
                values::show_size(pending)
            )
        }
        _ => text,
    }
}

/// `publish|subscribe|request|serve PATTERN RULE`; several actions may be joined
/// by bars.
fn permits(text: &str, names: &dyn Names) -> Result<Vec<Permit>, Wrong> {
    let what = "publish|subscribe|request|serve PATTERN RULE";
    let mut words = Words { text, at: 0 };
    let (actions_at, actions) = words.next();
    let (pattern_at, pattern) = words.next();
    let (rule_at, rule) = words.rest();
    if rule.is_empty() {
        return Err(Wrong::expected(what, text, text.len()));
    }
    let mut from = actions_at;
    let mut found = Vec::new();
    for action in actions.split('|') {
        let known = ["publish", "subscribe", "request", "serve"];
        let wrong = || Wrong::expected(&values::one_of(&known), action, 0).moved(from);
        let action_is = Action::parse(action).ok_or_else(wrong)?;
        found.push(action_is);
        from += action.len() + 1;
    }
    let what = "a pattern such as orders.> or orders.*.new";
    let wrong = || Wrong::expected(what, pattern, 0).moved(pattern_at);
    let pattern = Pattern::new(pattern.as_bytes()).ok_or_else(wrong)?;
    let rule = peers::rule(rule, names).map_err(|wrong| wrong.moved(rule_at))?;
    let permit = |action| Permit::new(action, pattern, rule.clone());
    Ok(found.into_iter().map(permit).collect())
}

/// Words separated by blanks, each with the byte at which it begins.
struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> (usize, &'a str) {
        let (at, rest) = self.rest();
        let length = rest.find([' ', '\t']).unwrap_or(rest.len());
        self.at = at + length;
        (at, rest.get(..length).unwrap_or_default())
    }

    fn rest(&self) -> (usize, &'a str) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let trimmed = rest.trim_start_matches([' ', '\t']);
        (self.at + rest.len() - trimmed.len(), trimmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Numeric;

    #[track_caller]
    fn check(text: &str, expected: Result<usize, usize>) {
        let names = Numeric {
            own_user: Uid::ROOT,
        };
        let found = permits(text, &names)
            .map(|list| list.len())
            .map_err(|wrong| wrong.caret);
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_permit_is_actions_a_pattern_and_a_rule() {
        check("publish orders.> uid:33", Ok(1));
        check("publish|subscribe  orders.>  uid:33,exe:/a", Ok(2));
        check("serve * any", Ok(1));
        check("publish orders.>", Err(16));
        check("publish|x a uid:1", Err(8));
        check("publish a..b uid:1", Err(8));
        check("publish a uid:x", Err(10));
        check("", Err(0));
    }
}
