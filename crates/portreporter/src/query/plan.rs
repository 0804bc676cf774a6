//! From arguments to hosts, ports and settings.

use std::collections::HashSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use event::Protocol;
use probe::{
    Ask, BadPorts, Host, Ports, ServiceSet, ServiceSets, Services, Settings, Targets, Unresolved,
    question,
};

use super::{QueryArgs, QueryError};

/// Up to so many ports are few: each is shown, and what has no question of its
/// own is listened to.
pub(super) const FEW: u64 = 50;

/// A time from the command line.
pub(super) type Seconds = Duration;

/// Reads a number of seconds such as `0.5`.
pub(super) fn seconds(text: &str) -> Result<Seconds, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.01..=600.0).contains(&number) {
        return Err("from 0.01 to 600 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(number))
}

/// What is to be done.
pub(super) struct Plan {
    pub(super) groups: Vec<Group>,
    pub(super) services: Services,
    pub(super) settings: Settings,
    /// The hosts that cannot be asked.
    pub(super) unresolved: Vec<Unresolved>,
}

/// Hosts that are asked the same ports.
pub(super) struct Group {
    pub(super) hosts: Vec<Host>,
    pub(super) ports: Ports,
    /// The set that these are, if they are one.
    pub(super) set: Option<ServiceSet>,
}

impl Group {
    /// The name under which an address was asked for.
    pub(super) fn name(&self, address: SocketAddr) -> Option<&str> {
        let named = |host: &&Host| host.address == address;
        Some(&self.hosts.iter().find(named)?.name)
    }

    pub(super) fn targets(&self) -> Targets<'_> {
        Targets {
            hosts: &self.hosts,
            ports: self.ports.as_slice(),
        }
    }
}

impl Plan {
    pub(super) fn new(args: &QueryArgs) -> anyhow::Result<Self> {
        let services = services(args.services.as_deref())?;
        let mut sets = ServiceSets::known();
        if let Some(path) = &args.sets {
            let text = read(path, "the file of sets")?;
            sets.add(&text, &services)
                .map_err(|source| QueryError::Sets {
                    path: path.clone(),
                    source,
                })?;
        }
        let mut plan = Self {
            groups: Vec::new(),
            settings: Settings::default(),
            services,
            unresolved: Vec::new(),
        };
        // All texts are understood before the first name goes to a resolver.
        let mut wishes = Vec::new();
        for text in &args.hosts {
            let (host, ports) = split(text)?;
            wishes.push((host, wanted(args, host, ports, &sets, &plan.services)?));
        }
        if let Some(option) = needless(args)? {
            return Err(QueryError::Usage(format!(
                "{option}: every host has ports of its own already"
            ))
            .into());
        }
        for (host, (ports, set)) in wishes {
            let found = probe::resolve(host).and_then(|hosts| family(args, host, hosts));
            match found {
                Ok(hosts) => plan.ask(hosts, ports, set),
                Err(error) => plan.unresolved.push(error),
            }
        }
        plan.settings = settings(args, plan.count())?;
        Ok(plan)
    }

    /// How many ports of how many addresses will be asked.
    pub(super) fn count(&self) -> u64 {
        self.groups
            .iter()
            .map(|group| group.targets().count())
            .sum()
    }

    /// Adds hosts; an address that was named before is not asked twice.
    fn ask(&mut self, hosts: Vec<Host>, ports: Ports, set: Option<ServiceSet>) {
        let same = |group: &Group| group.ports == ports && group.set == set;
        let at = self.groups.iter().position(same).unwrap_or_else(|| {
            self.groups.push(Group {
                hosts: Vec::new(),
                ports,
                set,
            });
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        let known: HashSet<_> = group.hosts.iter().map(|host| host.address).collect();
        let new = |host: &Host| !known.contains(&host.address);
        group.hosts.extend(hosts.into_iter().filter(new));
    }
}

/// The option that names ports and is of no use to any host.
fn needless(args: &QueryArgs) -> Result<Option<&'static str>, QueryError> {
    for text in &args.hosts {
        if split(text)?.1.is_none() {
            return Ok(None);
        }
    }
    let ports = args.ports.as_ref().map(|_| "--ports");
    Ok(ports.or(args.set.as_ref().map(|_| "--set")))
}

/// A host and what follows its colon. An IPv6 address stands in brackets, or
/// alone.
fn split(text: &str) -> Result<(&str, Option<&str>), QueryError> {
    if let Some(rest) = text.strip_prefix('[') {
        let parts = rest.split_once(']');
        return match parts.map(|(host, after)| (host, after, after.strip_prefix(':'))) {
            Some((host, "", _)) => Ok((host, None)),
            Some((host, _, Some(ports))) => Ok((host, Some(ports))),
            _ => Err(QueryError::Usage(format!(
                "{text}: an IPv6 address with its ports is written as in [::1]:80"
            ))),
        };
    }
    let bare = text.split(['%', '/']).next().unwrap_or_default();
    if bare.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    Ok(match text.split_once(':') {
        Some((host, ports)) => (host, Some(ports)),
        None => (text, None),
    })
}

/// The ports that are to be asked of a host.
fn wanted(
    args: &QueryArgs,
    host: &str,
    own: Option<&str>,
    sets: &ServiceSets,
    services: &Services,
) -> Result<(Ports, Option<ServiceSet>), QueryError> {
    if let Some(name) = &args.set
        && own.is_none()
    {
        let set = sets.get(name).ok_or_else(|| {
            let known: Vec<_> = sets.iter().map(|set| set.name.as_str()).collect();
            QueryError::Usage(format!(
                "--set {name}: there is no such set; there are {}",
                known.join(", ")
            ))
        })?;
        return Ok((set.ports(), Some(set.clone())));
    }
    let Some(text) = own.or(args.ports.as_deref()) else {
        let example = if host.contains(':') {
            format!("[{host}]:80")
        } else {
            format!("{host}:80")
        };
        return Err(QueryError::Usage(format!(
            "{host}: name its ports, as in {example}, or give --ports or --set"
        )));
    };
    let protocols: &[Protocol] = match (args.tcp, args.udp) {
        (true, true) => &[Protocol::Tcp, Protocol::Udp],
        (false, true) => &[Protocol::Udp],
        _ => &[Protocol::Tcp],
    };
    match Ports::parse(text, protocols, services) {
        Ok(ports) => Ok((ports, None)),
        Err(error) => match (sets.get(text), error) {
            (Some(set), BadPorts::Service(_)) => Ok((set.ports(), Some(set.clone()))),
            (_, error) => Err(QueryError::Usage(format!("the ports of {host}: {error}"))),
        },
    }
}

/// Those of the family that was asked for.
fn family(args: &QueryArgs, name: &str, mut hosts: Vec<Host>) -> Result<Vec<Host>, Unresolved> {
    if args.ipv4 {
        hosts.retain(|host| host.address.is_ipv4());
    } else if args.ipv6 {
        hosts.retain(|host| host.address.is_ipv6());
    }
    if hosts.is_empty() {
        return Err(Unresolved::Name {
            name: name.to_owned(),
            why: "it has no address of the family that was asked for".to_owned(),
        });
    }
    Ok(hosts)
}

/// Without a file that was asked for, the system's; without that, our own table.
fn services(path: Option<&Path>) -> Result<Services, QueryError> {
    match path {
        None => {
            Ok(Services::read(&probe::default_services()).unwrap_or_else(|_| Services::known()))
        }
        Some(path) => Services::read(path).map_err(|source| QueryError::Unreadable {
            what: "the services file",
            path: path.to_owned(),
            source,
        }),
    }
}

fn read(path: &Path, what: &'static str) -> Result<String, QueryError> {
    std::fs::read_to_string(path).map_err(|source| QueryError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })
}

fn settings(args: &QueryArgs, count: u64) -> Result<Settings, QueryError> {
    let mut settings = Settings {
        tries: args.tries,
        source_port: args.source_port,
        concurrency: usize::try_from(args.concurrency).unwrap_or(usize::MAX),
        rate: args.rate,
        shuffle: !args.no_shuffle,
        community: args.community.clone(),
        banner: args.banner || count <= FEW,
        ..Settings::default()
    };
    if let Some(path) = &args.radius_secret_file {
        let text = read(path, "the secret")?;
        // An editor ends the line.
        text.trim_end_matches(['\r', '\n'])
            .clone_into(&mut settings.secret);
    }
    if let Some(wait) = args.wait {
        settings.wait = wait;
        settings.reply_wait = wait;
    }
    if args.no_ask {
        settings.ask = Ask::Nothing;
        settings.banner = false;
    } else if let Some(name) = &args.speak {
        let find = |protocol| question::find(name, protocol);
        let question = find(Protocol::Tcp).or_else(|| find(Protocol::Udp));
        settings.ask = Ask::As(question.ok_or_else(|| unknown(name))?);
    }
    Ok(settings)
}

fn unknown(name: &str) -> QueryError {
    let mut known: Vec<_> = question::all().iter().map(|known| known.name()).collect();
    known.sort_unstable();
    QueryError::Usage(format!(
        "--as {name}: there is no question for it; there are {}",
        known.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_their_ports() {
        for (text, host, ports) in [
            ("db", "db", None),
            ("db:80,443", "db", Some("80,443")),
            ("db:", "db", Some("")),
            ("::1", "::1", None),
            ("fe80::1%eth0", "fe80::1%eth0", None),
            ("[::1]", "::1", None),
            ("[::1]:22,udp:53", "::1", Some("22,udp:53")),
            ("10.0.0.0/24:22", "10.0.0.0/24", Some("22")),
        ] {
            assert_eq!(split(text).unwrap(), (host, ports), "{text}");
        }
        for text in ["[::1", "[::1:80", "[::1]80", "["] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
