//! What has been found out so far.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use probe::{Port, ServiceSet, SetVerdict, Status, Verdict, Works};

use super::plan::{FEW, Group, Plan};

/// The verdicts that are shown, and how many there were of the others.
pub(super) struct Results<'a> {
    groups: Vec<Found<'a>>,
    every: bool,
    asked: u64,
    hidden: BTreeMap<(u8, String), u64>,
}

/// What was found of one group of the plan.
struct Found<'a> {
    group: &'a Group,
    /// Where each address stands among the hosts, and where its name does.
    places: HashMap<SocketAddr, Place>,
    shown: Vec<Verdict>,
    statuses: HashMap<Status, u64>,
}

#[derive(Clone, Copy)]
struct Place {
    name: usize,
    address: usize,
}

/// A row of the table: who was asked, under which name.
pub(super) struct Row<'a> {
    pub(super) host: &'a str,
    pub(super) verdict: &'a Verdict,
}

/// What became of a set on one address.
pub(super) struct Judged<'a> {
    pub(super) host: &'a str,
    pub(super) address: SocketAddr,
    pub(super) set: &'a ServiceSet,
    pub(super) verdict: SetVerdict,
}

impl<'a> Results<'a> {
    pub(super) fn new(plan: &'a Plan, every: bool) -> Self {
        Self {
            groups: plan.groups.iter().map(Found::new).collect(),
            every: every || plan.count() <= FEW,
            asked: 0,
            hidden: BTreeMap::new(),
        }
    }

    /// Keeps a verdict about a port of that group of the plan.
    pub(super) fn add(&mut self, group: usize, verdict: Verdict) {
        let is_shown = self.shows(&verdict);
        let Some(found) = self.groups.get_mut(group) else {
            return;
        };
        self.asked += 1;
        *found.statuses.entry(verdict.status).or_default() += 1;
        if is_shown || found.group.set.is_some() {
            found.shown.push(verdict);
        } else {
            let why = format!("{} ({})", verdict.status, verdict.reason);
            let why = (verdict.status.code(), why);
            *self.hidden.entry(why).or_default() += 1;
        }
    }

    /// Whether a verdict is shown, and not only counted.
    pub(super) fn shows(&self, verdict: &Verdict) -> bool {
        self.every || verdict.status == Status::Listening
    }

    /// Whether anything is shown.
    pub(super) fn has_rows(&self) -> bool {
        self.groups.iter().any(|found| !found.shown.is_empty())
    }

    /// How many ports there is a verdict about.
    pub(super) fn asked(&self) -> u64 {
        self.asked
    }

    /// How many ports have that status.
    pub(super) fn number(&self, status: Status) -> u64 {
        let number = |found: &Found<'_>| found.statuses.get(&status).copied();
        self.groups.iter().filter_map(number).sum()
    }

    /// Statuses with their reasons that are only counted.
    pub(super) fn hidden(&self) -> impl Iterator<Item = (&str, u64)> {
        let hidden = self.hidden.iter();
        hidden.map(|((_, why), number)| (why.as_str(), *number))
    }

    /// What is shown: hosts in the order in which they were named, of a host's
    /// addresses those first on which something listens, ports in the order in
    /// which they were named.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        self.groups.iter().flat_map(Found::rows).collect()
    }

    /// What became of the sets.
    pub(super) fn judged(&self) -> Vec<Judged<'_>> {
        self.groups.iter().flat_map(Found::judged).collect()
    }

    /// The exit code: the best status, or the worst if `all` are to listen. A
    /// set counts as one port of each address.
    pub(super) fn code(&self, all: bool, is_complete: bool) -> u8 {
        let mut codes: Vec<u8> = self
            .groups
            .iter()
            .filter(|found| found.group.set.is_none())
            .flat_map(|found| found.statuses.keys().map(|status| status.code()))
            .collect();
        codes.extend(self.judged().iter().map(|judged| code(&judged.verdict)));
        if !is_complete {
            codes.push(Status::Filtered.code());
        }
        // That a port is closed is certain, whatever the others are.
        let order = if all { [1, 2, 0] } else { [0, 2, 1] };
        let code = order.into_iter().find(|code| codes.contains(code));
        code.unwrap_or(Status::NotListening.code())
    }
}

/// The exit code of a set.
fn code(verdict: &SetVerdict) -> u8 {
    let status = match verdict.works {
        Works::Yes => Status::Listening,
        Works::No => Status::NotListening,
        Works::Unknown => Status::Filtered,
    };
    status.code()
}

impl<'a> Found<'a> {
    fn new(group: &'a Group) -> Self {
        let mut names = HashMap::new();
        let mut places = HashMap::new();
        for (address, host) in group.hosts.iter().enumerate() {
            let name = *names.entry(&*host.name).or_insert(address);
            places.insert(host.address, Place { name, address });
        }
        Self {
            group,
            places,
            shown: Vec::new(),
            statuses: HashMap::new(),
        }
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let mut best: HashMap<SocketAddr, u8> = HashMap::new();
        for verdict in &self.shown {
            let code = verdict.status.code();
            best.entry(bare(verdict.address))
                .and_modify(|best| *best = code.min(*best))
                .or_insert(code);
        }
        let ports: HashMap<Port, usize> = (self.group.ports.as_slice().iter().copied())
            .zip(0..)
            .collect();
        let mut rows: Vec<_> = self
            .shown
            .iter()
            .map(|verdict| {
                let address = bare(verdict.address);
                let place = self.places.get(&address).copied();
                let host = place.and_then(|place| self.group.hosts.get(place.address));
                let key = (
                    place.map(|place| place.name),
                    best.get(&address).copied(),
                    place.map(|place| place.address),
                    ports.get(&port(verdict)).copied(),
                );
                let host = host.map_or("", |host| &*host.name);
                (key, Row { host, verdict })
            })
            .collect();
        rows.sort_by_key(|(key, _)| *key);
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn judged(&self) -> Vec<Judged<'_>> {
        let Some(set) = &self.group.set else {
            return Vec::new();
        };
        let mut statuses = HashMap::new();
        for verdict in &self.shown {
            statuses.insert((bare(verdict.address), port(verdict)), verdict.status);
        }
        let hosts = self.group.hosts.iter();
        hosts
            .map(|host| Judged {
                host: &host.name,
                address: host.address,
                set,
                verdict: set.judge(|port| statuses.get(&(host.address, port)).copied()),
            })
            .collect()
    }
}

/// The port that a verdict is about.
pub(super) fn port(verdict: &Verdict) -> Port {
    Port {
        protocol: verdict.protocol,
        number: verdict.address.port(),
    }
}

/// The address without a port, as a host has it.
pub(super) fn bare(mut address: SocketAddr) -> SocketAddr {
    address.set_port(0);
    address
}

#[cfg(test)]
pub(super) mod tests {
    use event::Protocol;
    use probe::{Host, Ports, Reason, ServiceSets, Services, Settings};

    use super::*;

    pub(in crate::query) fn plan(set: Option<&str>) -> Plan {
        let host = |address: &str| Host {
            name: "box".into(),
            address: SocketAddr::new(address.parse().unwrap(), 0),
        };
        let set = set.map(|name| ServiceSets::known().get(name).unwrap().clone());
        let ports = match &set {
            Some(set) => set.ports(),
            None => Ports::parse("443,80", &[Protocol::Tcp], &Services::default()).unwrap(),
        };
        Plan {
            groups: vec![Group {
                hosts: vec![host("::1"), host("127.0.0.1")],
                ports,
                set,
            }],
            services: Services::default(),
            settings: Settings::default(),
            unresolved: Vec::new(),
        }
    }

    pub(in crate::query) fn verdict(address: &str, status: Status) -> Verdict {
        Verdict {
            address: address.parse().unwrap(),
            protocol: Protocol::Tcp,
            service: None,
            first: status,
            status,
            reason: Reason::Silence,
            attempts: 3,
            round_trip: None,
            asked: None,
            answer: None,
            ephemeral: false,
        }
    }

    #[test]
    fn the_address_that_listens_comes_first() {
        let plan = plan(None);
        let mut results = Results::new(&plan, false);
        for (address, status) in [
            ("[::1]:80", Status::NotListening),
            ("[::1]:443", Status::Filtered),
            ("127.0.0.1:80", Status::Listening),
            ("127.0.0.1:443", Status::NotListening),
        ] {
            results.add(0, verdict(address, status));
        }
        let rows = results.rows();
        let order: Vec<_> = rows
            .iter()
            .map(|row| row.verdict.address.to_string())
            .collect();
        assert_eq!(
            order,
            ["127.0.0.1:443", "127.0.0.1:80", "[::1]:443", "[::1]:80"]
        );
        assert_eq!(results.code(false, true), 0);
        assert_eq!(results.code(true, true), 1);
    }

    #[test]
    fn the_code_is_the_best_or_the_worst() {
        use Status::{Filtered, Listening, ListeningOrFiltered, NotListening};

        let plan = plan(None);
        let code = |statuses: &[Status], all| {
            let mut results = Results::new(&plan, false);
            for status in statuses {
                results.add(0, verdict("127.0.0.1:80", *status));
            }
            results.code(all, true)
        };
        assert_eq!(code(&[NotListening, Listening, Filtered], false), 0);
        assert_eq!(code(&[NotListening, Listening, Filtered], true), 1);
        assert_eq!(code(&[NotListening, ListeningOrFiltered], false), 2);
        assert_eq!(code(&[Listening, Filtered], true), 2);
        assert_eq!(code(&[Listening], true), 0);
        assert_eq!(code(&[NotListening], false), 1);
    }

    #[test]
    fn an_early_end_leaves_doubt() {
        let plan = plan(None);
        let mut results = Results::new(&plan, false);
        results.add(0, verdict("127.0.0.1:80", Status::NotListening));
        assert_eq!(results.code(false, false), 2);
        results.add(0, verdict("127.0.0.1:443", Status::Listening));
        assert_eq!(results.code(false, false), 0);
        assert_eq!(results.code(true, false), 1);
    }

    #[test]
    fn a_set_is_judged_on_each_address() {
        let plan = plan(Some("web"));
        let mut results = Results::new(&plan, false);
        results.add(0, verdict("127.0.0.1:80", Status::Listening));
        results.add(0, verdict("127.0.0.1:443", Status::Listening));
        results.add(0, verdict("[::1]:80", Status::NotListening));
        let judged = results.judged();
        assert_eq!(judged[0].verdict.works, Works::No);
        assert_eq!(judged[0].verdict.missing.len(), 2);
        assert_eq!(judged[1].verdict.works, Works::Yes);
        assert_eq!(results.code(false, true), 0);
        assert_eq!(results.code(true, true), 1);
    }
}
