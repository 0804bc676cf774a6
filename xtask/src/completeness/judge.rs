//! Holds what a watcher said against the truth, socket by socket.
//!
//! A sighting belongs to a fact if both have the socket's number, and else if
//! protocol, both ends and time agree; a watcher that does not know the numbers
//! loses nothing by that as long as it names the ends. Each question is asked
//! only of those that can answer it ([`Claims`]), and only where the truth is
//! known.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::play::Played;
use super::sighting::{Sighting, What, plain, same_end};
use super::watcher::Claims;
use crate::load::scenarios::fact::{End, Fact, Kind};

/// How long before a scenario began its sockets may have been seen: clocks of
/// different grain.
const EARLY: i64 = 200_000;

/// How long after a scenario's end a watcher that polls may still tell of it.
const LATE: i64 = 3_000_000;

/// A scenario's figures.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Score {
    /// Sockets that came into use.
    pub(super) sockets: u64,
    /// Of these, those that the watcher told of.
    pub(super) seen: u64,
    /// Of the sockets, those whose process it named rightly.
    pub(super) owner_right: u64,
    /// Sockets that were seen and given to somebody else, or to the right
    /// process under a wrong name. To name nobody is not wrong.
    pub(super) owner_wrong: u64,
    /// Sockets whose payload is known.
    pub(super) counted: u64,
    /// Of these, those that it counted rightly.
    pub(super) bytes_right: u64,
    /// Of these, those that it counted wrongly.
    pub(super) bytes_wrong: u64,
    /// Sockets that went while it watched.
    pub(super) ended: u64,
    /// Of these, those whose end it told.
    pub(super) closes_seen: u64,
    /// Of those, those whose end it gave another reason than the true one.
    pub(super) reasons_wrong: u64,
    /// Sockets that were seen with other ends than they had.
    pub(super) ends_wrong: u64,
    /// Sockets whose coming or going it told more than once.
    pub(super) twice: u64,
    /// What is not as it should be, in words.
    pub(super) findings: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The first of its kind, in words.
    pub(super) example: String,
    /// How many there are.
    pub(super) count: u64,
}

impl Score {
    /// Adds another one; its findings are not taken over.
    pub(super) fn add(&mut self, other: &Self) {
        self.sockets += other.sockets;
        self.seen += other.seen;
        self.owner_right += other.owner_right;
        self.owner_wrong += other.owner_wrong;
        self.counted += other.counted;
        self.bytes_right += other.bytes_right;
        self.bytes_wrong += other.bytes_wrong;
        self.ended += other.ended;
        self.closes_seen += other.closes_seen;
        self.reasons_wrong += other.reasons_wrong;
        self.ends_wrong += other.ends_wrong;
        self.twice += other.twice;
    }

    /// Notes a finding. Those that differ in their numbers only are one.
    fn find(&mut self, fact: &Fact, what: &str) {
        let text = format!("{}: {what}", fact.role);
        let kind = |text: &str| text.replace(|letter: char| letter.is_ascii_digit(), "");
        match self
            .findings
            .iter_mut()
            .find(|finding| kind(&finding.example) == kind(&text))
        {
            Some(finding) => finding.count += 1,
            None => self.findings.push(Finding {
                example: text,
                count: 1,
            }),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.example)?;
        if self.count > 1 {
            write!(f, " (and {} like it)", self.count - 1)?;
        }
        Ok(())
    }
}

/// Everything that a watcher said, ready to be asked.
pub(super) struct Judge<'a> {
    sightings: &'a [Sighting],
    claims: Claims,
    by_cookie: HashMap<u64, Vec<usize>>,
    by_ports: HashMap<Ports, Vec<usize>>,
    by_peer: HashMap<Ports, Vec<usize>>,
    used: HashSet<usize>,
}

/// A protocol and up to two ports.
type Ports = (String, Option<u16>, Option<u16>);

impl<'a> Judge<'a> {
    /// Takes in what a watcher said.
    pub(super) fn new(sightings: &'a [Sighting], claims: Claims) -> Self {
        let mut judge = Self {
            sightings,
            claims,
            by_cookie: HashMap::new(),
            by_ports: HashMap::new(),
            by_peer: HashMap::new(),
            used: HashSet::new(),
        };
        for (number, said) in sightings.iter().enumerate() {
            if let Some(cookie) = said.cookie {
                judge.by_cookie.entry(cookie).or_default().push(number);
            }
            let (own, peer) = ports(&said.protocol, said.local, said.remote);
            judge.by_ports.entry(own).or_default().push(number);
            judge.by_peer.entry(peer).or_default().push(number);
        }
        judge
    }

    /// Judges a scenario.
    pub(super) fn score(&mut self, played: &Played) -> Score {
        let mut score = Score::default();
        let window = played.began - EARLY..=played.ended + LATE;
        for fact in &played.facts {
            score.sockets += 1;
            let about = self.about(fact, &window);
            self.coming(fact, &about, &mut score);
            self.going(fact, &about, &mut score);
        }
        score
    }

    /// The sightings of a fact's socket, in order.
    fn about(&self, fact: &Fact, window: &std::ops::RangeInclusive<i64>) -> Vec<usize> {
        let mut found: Vec<usize> = fact
            .cookie
            .and_then(|cookie| self.by_cookie.get(&cookie))
            .cloned()
            .unwrap_or_default();
        if found.is_empty() {
            let remote = fact.remote.filter(|_| fact.protocol != "udp");
            let (own, peer) = ports(&fact.protocol, fact.local, remote);
            let known = if fact.local.is_some() {
                self.by_ports.get(&own)
            } else {
                self.by_peer.get(&peer)
            };
            found = known.cloned().unwrap_or_default();
            found.retain(|number| {
                let said = &self.sightings[*number];
                (said.cookie.is_none() || fact.cookie.is_none())
                    && (fact.before || window.contains(&said.at))
                    && agree(fact.netns, said.netns)
                    && ends_agree(fact, said)
            });
        }
        found.retain(|number| !self.used.contains(number));
        found
    }

    /// Was its coming told, and rightly?
    fn coming(&mut self, fact: &Fact, about: &[usize], score: &mut Score) {
        let fits = |what: What| match what {
            What::Opened(kind) => !self.claims.kinds || (kind == fact.kind && !fact.before),
            What::Found => !self.claims.kinds || fact.before,
            What::Closed(_) => false,
        };
        let mut coming: Vec<usize> = about
            .iter()
            .copied()
            .filter(|number| fits(self.sightings[*number].what))
            .collect();
        // A socket may have several lives; this one has these ends.
        let exact = |number: &usize| ends_agree(fact, &self.sightings[*number]);
        if coming.iter().any(exact) {
            coming.retain(exact);
        } else if coming.len() > 1 {
            coming.truncate(1);
        }
        let named = coming
            .iter()
            .find(|number| self.sightings[**number].pid.is_some());
        let Some(&first) = named.or(coming.first()) else {
            score.find(fact, "not seen");
            return;
        };
        let said = &self.sightings[first];
        score.seen += 1;
        if self.claims.kinds {
            let same_life = |number: &&usize| said.cookie == self.sightings[**number].cookie;
            if coming.iter().filter(same_life).count() > 1 {
                score.twice += 1;
                score.find(fact, "told more than once");
            }
            if !ends_agree(fact, said) {
                score.ends_wrong += 1;
                score.find(
                    fact,
                    &format!(
                        "ends {:?} {:?} for {:?} {:?}",
                        said.local, said.remote, fact.local, fact.remote
                    ),
                );
            }
        }
        if self.claims.owners {
            match owner(fact, said) {
                Ok(()) => score.owner_right += 1,
                Err(why) => {
                    score.owner_wrong += u64::from(said.pid.is_some());
                    score.find(fact, &why);
                }
            }
        }
        // Those of a poller that tells of the same socket again and again.
        let same = |number: &usize| {
            let other = &self.sightings[*number];
            (other.local, other.remote) == (said.local, said.remote)
        };
        coming.retain(same);
        self.used.extend(coming);
    }

    /// Was its going told, and rightly?
    fn going(&mut self, fact: &Fact, about: &[usize], score: &mut Score) {
        let Some(end) = fact.end else { return };
        if !self.claims.closes {
            return;
        }
        score.ended += 1;
        score.counted += u64::from(self.claims.bytes && fact.sent.is_some());
        let closing: Vec<(usize, Option<End>)> = about
            .iter()
            .filter_map(|number| match self.sightings[*number].what {
                What::Closed(reason) => Some((*number, reason)),
                _ => None,
            })
            .collect();
        let exact = closing
            .iter()
            .find(|(number, _)| ends_agree(fact, &self.sightings[*number]));
        let Some(&(number, reason)) = exact.or(closing.first()) else {
            score.find(fact, "its end was not seen");
            return;
        };
        let said = &self.sightings[number];
        self.used.insert(number);
        score.closes_seen += 1;
        if self.claims.reasons && end != End::Somehow && reason != Some(end) {
            score.reasons_wrong += 1;
            score.find(fact, &format!("ended {reason:?}, not {end:?}"));
        }
        if !self.claims.bytes {
            return;
        }
        let (Some(sent), Some(received)) = (fact.sent, fact.received) else {
            return;
        };
        let grain = self.claims.grain;
        match (said.sent, said.received) {
            (Some(out), Some(back))
                if out.abs_diff(sent) <= grain && back.abs_diff(received) <= grain =>
            {
                score.bytes_right += 1;
            }
            (None, None) => {}
            other => {
                score.bytes_wrong += 1;
                score.find(fact, &format!("bytes {other:?}, not {sent} and {received}"));
            }
        }
    }
}

/// Is the process named rightly?
fn owner(fact: &Fact, said: &Sighting) -> Result<(), String> {
    if said.pid.is_none() {
        return Err("no process is named".to_owned());
    }
    if said.pid != Some(fact.pid) {
        return Err(format!("process {:?}, not {}", said.pid, fact.pid));
    }
    if !agree(fact.uid, said.uid) {
        return Err(format!("user {:?}, not {:?}", said.uid, fact.uid));
    }
    // A watcher that names executables names this one.
    let exe = said.exe.as_deref().map(without_mark);
    if said.exe.is_some() && !agree(fact.exe.as_deref().map(without_mark), exe) {
        return Err(format!("executable {:?}, not {:?}", said.exe, fact.exe));
    }
    if said.exe.is_some() && fact.container.is_some() && said.container != fact.container {
        return Err(format!(
            "container {:?}, not {:?}",
            said.container, fact.container
        ));
    }
    Ok(())
}

/// A path without what says that nothing is there any more.
fn without_mark(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// Equal, as far as both are known.
fn agree<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

/// The ends are the same, as far as the truth is known.
fn ends_agree(fact: &Fact, said: &Sighting) -> bool {
    let same = |truth: Option<_>, told: Option<_>| match (truth, told) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(truth), Some(told)) => same_end(truth, told),
    };
    let remote = fact.remote.filter(|_| fact.kind != Kind::Bind);
    same(fact.local, said.local) && same(remote, said.remote)
}

/// What a socket without a known number is found by: by both ports, and by the
/// peer's alone.
fn ports(
    protocol: &str,
    local: Option<std::net::SocketAddr>,
    remote: Option<std::net::SocketAddr>,
) -> (Ports, Ports) {
    let own = local.map(|end| plain(end).1);
    let peer = remote
        .filter(|_| protocol != "udp")
        .map(|end| plain(end).1)
        .filter(|port| *port != 0);
    (
        (protocol.to_owned(), own, peer),
        (protocol.to_owned(), None, peer),
    )
}

#[cfg(test)]
mod tests {
    use super::super::bill::Cost;

    use super::*;
    use crate::completeness::play::Outcome;
    use crate::completeness::watcher::Who;

    fn fact(kind: Kind, cookie: u64, local: &str, remote: Option<&str>) -> Fact {
        Fact {
            role: "role".to_owned(),
            kind,
            protocol: "tcp".to_owned(),
            cookie: Some(cookie),
            netns: None,
            local: Some(local.parse().unwrap()),
            remote: remote.map(|end| end.parse().unwrap()),
            pid: 7,
            uid: None,
            exe: None,
            container: None,
            sent: Some(5),
            received: Some(0),
            end: Some(End::Closed),
            before: false,
        }
    }

    fn said(what: What, cookie: Option<u64>, local: &str, remote: Option<&str>) -> Sighting {
        Sighting {
            at: 50,
            cookie,
            protocol: "tcp".to_owned(),
            what,
            local: Some(local.parse().unwrap()),
            remote: remote.map(|end| end.parse().unwrap()),
            pid: Some(7),
            sent: Some(5),
            received: Some(0),
            ..Sighting::default()
        }
    }

    fn played(facts: Vec<Fact>) -> Played {
        Played {
            name: "test",
            facts,
            outcome: Outcome::Done,
            began: 0,
            ended: 100,
            cost: Cost::default(),
        }
    }

    const HERE: &str = "127.0.0.1:1";
    const THERE: Option<&str> = Some("127.0.0.1:2");

    #[test]
    fn what_is_told_rightly_is_right() {
        let all = [
            said(What::Opened(Kind::Connect), Some(1), HERE, THERE),
            said(What::Closed(Some(End::Closed)), Some(1), HERE, THERE),
        ];
        let mut judge = Judge::new(&all, Who::Ebpf.claims());
        let score = judge.score(&played(vec![fact(Kind::Connect, 1, HERE, THERE)]));
        assert_eq!(score.findings, Vec::new());
        assert_eq!(
            (score.seen, score.owner_right, score.bytes_right),
            (1, 1, 1)
        );
        assert_eq!(
            (score.closes_seen, score.twice, score.ends_wrong),
            (1, 0, 0)
        );
    }

    #[test]
    fn another_kind_is_not_seen_by_one_that_tells_kinds() {
        let all = [said(What::Opened(Kind::Accept), Some(1), HERE, THERE)];
        let truth = played(vec![fact(Kind::Connect, 1, HERE, THERE)]);
        assert_eq!(Judge::new(&all, Who::Ebpf.claims()).score(&truth).seen, 0);
        assert_eq!(Judge::new(&all, Who::Ss.claims()).score(&truth).seen, 1);
    }

    #[test]
    fn a_socket_with_two_lives_is_asked_for_each() {
        let all = [
            said(What::Opened(Kind::Listen), Some(1), HERE, None),
            said(What::Closed(Some(End::Closed)), Some(1), HERE, None),
            said(What::Opened(Kind::Listen), Some(1), "127.0.0.1:9", None),
            said(
                What::Closed(Some(End::Closed)),
                Some(1),
                "127.0.0.1:9",
                None,
            ),
        ];
        let truth = played(vec![
            fact(Kind::Listen, 1, HERE, None),
            fact(Kind::Listen, 1, "127.0.0.1:9", None),
        ]);
        let score = Judge::new(&all, Who::Ebpf.claims()).score(&truth);
        assert_eq!((score.seen, score.closes_seen, score.ends_wrong), (2, 2, 0));
        let score = Judge::new(&all[..2], Who::Ebpf.claims()).score(&truth);
        assert_eq!((score.seen, score.closes_seen), (1, 1));
    }

    #[test]
    fn without_numbers_ends_and_time_count() {
        let truth = played(vec![fact(Kind::Connect, 1, HERE, THERE)]);
        let mut late = said(What::Found, None, HERE, THERE);
        let score = |all: &[Sighting]| Judge::new(all, Who::Ss.claims()).score(&truth);
        assert_eq!(score(&[late.clone()]).owner_right, 1);
        late.at = 100 + LATE + 1;
        assert_eq!(score(&[late]).seen, 0);
        let other = said(What::Found, None, HERE, Some("127.0.0.2:2"));
        assert_eq!(score(&[other]).seen, 0);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut open = said(What::Opened(Kind::Connect), Some(1), HERE, THERE);
        open.pid = Some(8);
        let mut close = said(What::Closed(Some(End::Reset)), Some(1), HERE, THERE);
        close.sent = Some(6);
        let all = [open.clone(), open, close];
        let truth = played(vec![fact(Kind::Connect, 1, HERE, THERE)]);
        let score = Judge::new(&all, Who::Ebpf.claims()).score(&truth);
        assert_eq!((score.owner_wrong, score.twice), (1, 1));
        assert_eq!((score.reasons_wrong, score.bytes_wrong), (1, 1));
        assert_eq!(score.findings.len(), 4);
    }
}
