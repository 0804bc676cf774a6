//! `query` beside `nmap`: every port of one host, many hosts of which half of
//! the ports are filtered, and ports of every kind.
//!
//! All of it happens in a network namespace of the bench's own, over loopback,
//! so the answers are known before. Neither program puts a question to what it
//! finds: that is what they have in common.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use rustix::thread::UnshareFlags;
use serde_json::Value;

use super::report::{Figure, Target, Unit, median};
use super::{Sizes, peer, progress};

const BENCH: &str = "query";
/// Ports that listen among all others.
const OPEN: u16 = 20;
/// How many ports `query` asks at once, if it is not told otherwise.
const CONCURRENCY: f64 = 1024.0;
/// How long `query` waits for a silent port of a host that answers at once:
/// three tries of 0.1, 0.2 and 0.4 seconds.
const SILENCE: f64 = 0.7;
/// The same for a host of which nothing is known at the first of these tries.
const FIRST_SILENCE: f64 = 1.6;
/// Ports of each host among many, half of them filtered.
const PORTS_EACH: u32 = 20;
/// Prefixes of 1,000 addresses, and of 64.
const THOUSAND: &[&str] = &[
    "127.1.0.0/23",
    "127.1.2.0/24",
    "127.1.3.0/25",
    "127.1.3.128/26",
    "127.1.3.192/27",
    "127.1.3.224/29",
];
const FEW: &[&str] = &["127.1.0.0/26"];

/// Status words by protocol and port.
type Verdicts = BTreeMap<(String, u16), String>;

/// Measures, on a thread that is in the namespace.
pub(super) fn run(binary: &Path, sizes: &Sizes) -> anyhow::Result<Vec<Figure>> {
    let bench = Bench {
        binary: binary.to_owned(),
        nmap: peer::find("nmap"),
        nft: peer::find("nft").context("nft: not installed (Debian package nftables)")?,
        last_port: sizes.query_ports,
        rounds: sizes.query_rounds,
        hosts: if sizes.query_hosts == 64 {
            FEW
        } else {
            THOUSAND
        },
        mixed: sizes.query_mixed,
    };
    let inside = thread::spawn(move || {
        // SAFETY: a new network namespace changes no memory, file descriptor or
        // signal that other threads rely on.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        run_to_end(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        let mut figures = bench.every_port()?;
        figures.extend(bench.many_hosts()?);
        figures.extend(bench.every_kind("tcp")?);
        figures.extend(bench.every_kind("udp")?);
        Ok(figures)
    });
    inside.join().map_err(|_| anyhow!("the bench panicked"))?
}

struct Bench {
    binary: PathBuf,
    nmap: Option<PathBuf>,
    nft: PathBuf,
    last_port: u16,
    rounds: u32,
    hosts: &'static [&'static str],
    mixed: u16,
}

impl Bench {
    /// One host, of which nearly every port is closed.
    fn every_port(&self) -> anyhow::Result<Vec<Figure>> {
        progress(&format!("query: {} ports of one host", self.last_port));
        let step = self.last_port / OPEN;
        let open: Vec<u16> = (0..OPEN).map(|number| 1 + number * step).collect();
        let listeners: Result<Vec<_>, _> = open
            .iter()
            .map(|port| TcpListener::bind(("127.0.0.1", *port)))
            .collect();
        let listeners = listeners.context("cannot listen")?;
        let range = format!("1-{}", self.last_port);

        let mut query = self.query(&[&format!("127.0.0.1:{range}"), "--no-ask"]);
        let mut nmap = self.nmap(&["-sT", "-T5", "-n", "-Pn", "-p", &range, "127.0.0.1"]);
        let found = self.verdicts(&[&format!("127.0.0.1:{range}"), "--no-ask"])?;
        let wrong = (1..=self.last_port)
            .filter(|port| {
                let word = if open.contains(port) {
                    "LISTENING"
                } else {
                    "NOT LISTENING"
                };
                found.get(&("tcp".to_owned(), *port)).map(String::as_str) != Some(word)
            })
            .count();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            ours.push(millis(&mut query)?);
            if let Some(nmap) = &mut nmap {
                theirs.push(millis(nmap)?);
            }
        }
        drop(listeners);
        Ok(vec![
            Figure::new(
                BENCH,
                format!("{} ports of one host, {OPEN} open", self.last_port),
                Unit::Millis,
                median(&ours).unwrap_or(f64::NAN),
            )
            .beside("nmap -sT -T5", median(&theirs))
            .target(Target::RatioAtMost(0.7)),
            Figure::count(BENCH, "wrong verdicts among them", wrong as u64).target(Target::Zero),
        ])
    }

    /// Many hosts, of which half of the ports say nothing.
    fn many_hosts(&self) -> anyhow::Result<Vec<Figure>> {
        let sizes = self.hosts.iter().map(|prefix| prefix.rsplit('/').next());
        let bits = sizes.map(|bits| bits.and_then(|bits| bits.parse::<u32>().ok()));
        let hosts: u32 = bits.map(|bits| 1 << (32 - bits.unwrap_or(32))).sum();
        progress(&format!("query: {hosts} hosts with {PORTS_EACH} ports"));
        // Only what asks, not what comes back.
        self.filter("tcp dport 1011-1020 tcp flags & (syn|ack) == syn drop")?;
        accept(TcpListener::bind("0.0.0.0:1001").context("cannot listen")?);
        let mut query = self.query(self.hosts);
        query.args(["--ports", "1001-1020", "--no-ask"]);
        let mut times = Vec::new();
        for _ in 0..self.rounds {
            times.push(millis(&mut query)? / 1e3);
        }
        let mut arguments = self.hosts.to_vec();
        arguments.extend(["--ports", "1001-1020", "--no-ask", "--json"]);
        let text = output(&mut self.query(&arguments))?;
        let number = |word: &str| text.matches(&format!("\"status\":\"{word}\"")).count() as u64;
        let all = u64::from(hosts);
        let wrong = number("LISTENING").abs_diff(all)
            + number("NOT LISTENING").abs_diff(9 * all)
            + number("FILTERED").abs_diff(10 * all);
        self.clear()?;
        let silent = f64::from(hosts * PORTS_EACH / 2);
        let bound = (silent / CONCURRENCY * SILENCE).max(FIRST_SILENCE);
        Ok(vec![
            Figure::new(
                BENCH,
                format!("{hosts} hosts, {PORTS_EACH} ports each, half filtered"),
                Unit::Seconds,
                median(&times).unwrap_or(f64::NAN),
            )
            .beside("the bound by timeouts and concurrency", Some(bound))
            .target(Target::RatioAtMost(1.2)),
            Figure::count(BENCH, "wrong verdicts among them", wrong).target(Target::Zero),
        ])
    }

    /// Ports of every kind, by what is known and by what `nmap` says.
    fn every_kind(&self, protocol: &'static str) -> anyhow::Result<Vec<Figure>> {
        progress(&format!(
            "query: {} {protocol} ports of every kind",
            self.mixed
        ));
        let kind = |port: u16| port / (self.mixed / 5);
        let first = |kind: u16| 10_000 + kind * (self.mixed / 5);
        let (drop_from, drop_to) = (first(2), first(3) - 1);
        let (reject_from, reject_to) = (first(3), first(4) - 1);
        let dropped = match protocol {
            "tcp" => "tcp flags & (syn|ack) == syn drop",
            _ => "drop",
        };
        self.filter(&format!(
            "{protocol} dport {drop_from}-{drop_to} {dropped}\n\
             {protocol} dport {reject_from}-{reject_to} reject with icmp type admin-prohibited"
        ))?;
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for port in (0..self.mixed).map(|number| 10_000 + number) {
            match (protocol, kind(port - 10_000)) {
                ("tcp", 0) => listeners.push(TcpListener::bind(("127.0.0.1", port))?),
                ("udp", 0) => echo(UdpSocket::bind(("127.0.0.1", port))?),
                // A listener that has nothing to say.
                ("udp", 4) => sockets.push(UdpSocket::bind(("127.0.0.1", port))?),
                _ => {}
            }
        }
        let truth = |port: u16| match (protocol, kind(port - 10_000)) {
            (_, 0) => "LISTENING",
            ("udp", 2 | 4) => "LISTENING or FILTERED",
            (_, 2 | 3) => "FILTERED",
            _ => "NOT LISTENING",
        };
        let range = format!("10000-{}", 10_000 + self.mixed - 1);
        let (ports, scan) = match protocol {
            "tcp" => (format!("127.0.0.1:{range}"), "-sT"),
            _ => (format!("127.0.0.1:udp:{range}"), "-sU"),
        };
        let ours = self.verdicts(&[&ports, "--no-ask"])?;
        let theirs = match self.nmap(&[
            scan,
            "-T4",
            "-n",
            "-Pn",
            "-p",
            &range,
            "-oX",
            "-",
            "127.0.0.1",
        ]) {
            Some(mut nmap) => Some(read_nmap(&output(&mut nmap)?)),
            None => None,
        };
        self.clear()?;
        drop((listeners, sockets));
        let (mut wrong, mut differ) = (0, 0);
        for port in (0..self.mixed).map(|number| 10_000 + number) {
            let key = (protocol.to_owned(), port);
            let word = ours.get(&key).map(String::as_str);
            wrong += u64::from(word != Some(truth(port)));
            if let Some(theirs) = &theirs {
                differ += u64::from(theirs.get(&key).map(String::as_str) != word);
            }
        }
        let mut figures = vec![
            Figure::count(
                BENCH,
                format!(
                    "wrong verdicts about {} {protocol} ports of every kind",
                    self.mixed
                ),
                wrong,
            )
            .target(Target::Zero),
        ];
        if theirs.is_some() {
            let what = format!("of them different from those of nmap {scan}");
            figures.push(Figure::count(BENCH, what, differ));
        }
        Ok(figures)
    }

    fn query(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("query").args(arguments);
        command
    }

    fn nmap(&self, arguments: &[&str]) -> Option<Command> {
        let mut command = Command::new(self.nmap.as_ref()?);
        command.args(arguments);
        Some(command)
    }

    fn verdicts(&self, arguments: &[&str]) -> anyhow::Result<Verdicts> {
        let text = output(self.query(arguments).arg("--json"))?;
        let mut verdicts = Verdicts::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line)?;
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            let port = line["port"].as_u64().and_then(|port| port.try_into().ok());
            let port = port.context("a line without a port")?;
            verdicts.insert((text("protocol"), port), text("status"));
        }
        Ok(verdicts)
    }

    fn filter(&self, rules: &str) -> anyhow::Result<()> {
        let script = format!(
            "table inet bench {{ chain input {{ type filter hook input priority 0;\n{rules}\n}}\n}}\n"
        );
        run_to_end(Command::new(&self.nft).arg(script))
    }

    fn clear(&self) -> anyhow::Result<()> {
        run_to_end(Command::new(&self.nft).args(["delete", "table", "inet", "bench"]))
    }
}

/// Reads `nmap -oX`. Ports with a state that many have are told together, as
/// ranges.
fn read_nmap(xml: &str) -> Verdicts {
    let mut found = Verdicts::new();
    let (mut protocol, mut ports, mut shared) = ("", Vec::new(), "?");
    for tag in xml.split('<') {
        let of = |name: &str| attribute(tag, name);
        match tag.split([' ', '>']).next().unwrap_or_default() {
            "extraports" => shared = word(of("state")),
            "extrareasons" => {
                for number in ranges(of("ports")) {
                    found.insert((of("proto").to_owned(), number), shared.to_owned());
                }
            }
            "port" => {
                protocol = of("protocol");
                ports = ranges(of("portid"));
            }
            "state" => {
                for number in ports.drain(..) {
                    let status = word(of("state")).to_owned();
                    found.insert((protocol.to_owned(), number), status);
                }
            }
            _ => {}
        }
    }
    found
}

/// Our word for one of nmap's.
fn word(state: &str) -> &'static str {
    match state {
        "open" => "LISTENING",
        "closed" => "NOT LISTENING",
        "filtered" => "FILTERED",
        "open|filtered" => "LISTENING or FILTERED",
        _ => "?",
    }
}

fn attribute<'a>(tag: &'a str, name: &str) -> &'a str {
    let value = tag.split_once(&format!(" {name}=\""));
    value
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or_default()
}

/// `80,90-92`
fn ranges(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Takes every connection, until the process ends: a full backlog is silent.
fn accept(listener: TcpListener) {
    thread::spawn(move || listener.incoming().for_each(drop));
}

/// Sends back what comes, until the process ends.
fn echo(socket: UdpSocket) {
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // A datagram may be lost anywhere.
            let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
        }
    });
}

/// What a program prints. Its exit code is its verdict, not its success.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{command:?}"))?;
    check(command, output.status.code())?;
    Ok(String::from_utf8(output.stdout)?)
}

fn millis(command: &mut Command) -> anyhow::Result<f64> {
    let start = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("{command:?}"))?;
    let elapsed = start.elapsed();
    check(command, status.code())?;
    Ok(elapsed.as_secs_f64() * 1e3)
}

fn check(command: &Command, code: Option<i32>) -> anyhow::Result<()> {
    match code {
        Some(0..=2) => Ok(()),
        code => bail!("{command:?}: ended with {code:?}"),
    }
}

fn run_to_end(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nmap_is_understood() {
        let text = "<nmaprun><ports><extraports state=\"closed\" count=\"3\">\
                    <extrareasons reason=\"conn-refused\" count=\"3\" proto=\"tcp\" \
                    ports=\"1-2,9\"/></extraports>\n<port protocol=\"udp\" portid=\"81\">\
                    <state state=\"open|filtered\" reason=\"no-response\"/></port></ports>";
        let found = read_nmap(text);
        let found: Vec<_> = found
            .iter()
            .map(|((_, port), word)| (*port, &**word))
            .collect();
        let closed = "NOT LISTENING";
        assert_eq!(
            found,
            [
                (1, closed),
                (2, closed),
                (9, closed),
                (81, "LISTENING or FILTERED")
            ]
        );
    }
}
