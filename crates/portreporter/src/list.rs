//! `portreporter list`: every port in use now, with its owner.
//!
//! One snapshot is taken, filtered, sorted and printed, as a table for people,
//! as blocks of one process each (`-v`) or as JSON Lines for programs. What
//! cannot be seen is said in one line on standard error; the rest is listed
//! all the same.
//!
//! With thousands of processes and tens of thousands of sockets every look at
//! a process counts. So each process is looked at once, only if one of its
//! sockets is to be shown, and only for what is shown ([`people`]). Where all
//! is shown, nearly every process that holds sockets will be: the time in which
//! the kernel's tables are still being read is spent on those.

mod filter;
pub(crate) mod json;
mod people;
mod table;
mod verbose;

use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use event::{Degradation, Endpoint, Protocol, TcpState};
use sensor::FoundSocket;

use self::filter::Filter;
pub(crate) use self::filter::PortRange;
use self::people::{People, Person};

/// Nothing was found.
const EXIT_NONE: u8 = 1;
/// So much is gathered before it is written.
const BUFFER: usize = 256 * 1024;
/// For fewer rows another thread is not worth its start.
const ROWS_PER_THREAD: usize = 2000;

/// List every port in use now, with its owner
///
/// Shows all TCP and UDP sockets that use a port, in all network namespaces
/// that can be reached, with process, user, systemd unit and container.
/// Several filters narrow each other down; several values of one filter widen
/// it.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  portreporter list --listening          what can be connected to
  portreporter list --port 443,8000-8099 who uses these ports
  portreporter list --user www-data -v   with modules and port statistics
  portreporter list --json | jq .        for programs

Exit code: 0 if there is something to show, 1 if not.")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch on the command line"
)]
pub(crate) struct ListArgs {
    /// Only TCP listeners and UDP sockets without a peer
    #[arg(long)]
    pub(crate) listening: bool,
    /// Only TCP
    #[arg(long)]
    pub(crate) tcp: bool,
    /// Only UDP
    #[arg(long)]
    pub(crate) udp: bool,
    /// Only sockets with this local or remote port, or one in this range
    #[arg(long, value_name = "N[,N|A-B]", value_delimiter = ',', value_parser = PortRange::parse)]
    pub(crate) port: Vec<PortRange>,
    /// Only sockets that this process holds
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
    /// Only sockets that a process of this name holds; a name with a slash is
    /// the path of an executable
    #[arg(long, value_name = "NAME")]
    pub(crate) process: Vec<String>,
    /// Only sockets that processes of this user hold, by name or number
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Vec<String>,
    /// Only TCP connections in this state, such as ESTABLISHED or time-wait
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = parse_state)]
    pub(crate) state: Vec<TcpState>,
    /// A block for each process, with modules and port statistics
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) verbose: bool,
    /// One JSON object for each socket
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_state(text: &str) -> Result<TcpState, String> {
    TcpState::from_name(text).ok_or_else(|| {
        let known: Vec<&str> = TcpState::ALL.into_iter().map(TcpState::name).collect();
        format!("there is no such state; there are {}", known.join(", "))
    })
}

/// A socket that is to be shown.
#[derive(Clone, Copy)]
struct Row<'a> {
    /// Orders most rows; see [`Row::key`].
    key: u128,
    found: &'a FoundSocket,
    /// The holder that is named: the first that the filter lets through.
    owner: Option<u32>,
    /// So many others hold it.
    others: u32,
}

impl<'a> Row<'a> {
    fn new(found: &'a FoundSocket) -> Self {
        Self {
            key: Self::key(found),
            owner: found.holders.first().copied(),
            others: u32::try_from(found.holders.len().saturating_sub(1)).unwrap_or(u32::MAX),
            found,
        }
    }

    /// Is the local address one of IPv6?
    fn is_ipv6(&self) -> bool {
        self.key & Self::IPV6 != 0
    }

    const IPV6: u128 = 1 << 110;

    /// Protocol, port, family and the first 32 bits of the address in one
    /// number, and if that is the whole address the same of the peer: where two
    /// differ they are in the order of the sockets, and there is no need to look
    /// at these.
    fn key(found: &FoundSocket) -> u128 {
        let socket = &found.socket;
        let protocol = match socket.protocol {
            Protocol::Tcp => 0,
            _ => 1 << 127,
        };
        let port = u128::from(socket.local.port) << 111;
        let address = match (socket.local.ip, socket.remote) {
            (IpAddr::V4(ip), remote) => u128::from(ip.to_bits()) << 78 | Self::peer(remote),
            (IpAddr::V6(ip), _) => Self::IPV6 | ip.to_bits() >> 96 << 78,
        };
        protocol | port | address
    }

    /// The lower 78 bits of the key; nobody comes first.
    fn peer(remote: Option<Endpoint>) -> u128 {
        const SOMEBODY: u128 = 1 << 77;
        match remote {
            None => 0,
            Some(Endpoint {
                ip: IpAddr::V4(ip),
                port,
            }) => SOMEBODY | u128::from(ip.to_bits()) << 44 | u128::from(port) << 28,
            Some(_) => SOMEBODY | 1 << 76,
        }
    }
}

/// Takes a snapshot and prints what is asked for.
pub(crate) fn run(args: ListArgs) -> anyhow::Result<ExitCode> {
    let (json, verbose) = (args.json, args.verbose);
    let mut people = People::new(json || verbose);
    let filter = Filter::new(args);
    let snapshot = if filter.admits_everything() {
        sensor::snapshot_while(|pid| people.expect(pid))
    } else {
        sensor::snapshot()
    };
    let snapshot = snapshot.context("cannot read the table of sockets")?;
    warn(&snapshot.degradations);
    let rows = select(&snapshot.sockets, &filter, &mut people);

    let mut out = io::BufWriter::with_capacity(BUFFER, io::stdout().lock());
    let written = if json {
        json::write(&mut out, &rows, &people)
    } else if verbose {
        verbose::write(&mut out, &rows, &mut people)
    } else {
        table::write(&mut out, &rows, people.register(), table::terminal_width())
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        Err(error) => return Err(error).context("cannot write the list"),
    }
    let code = if rows.is_empty() {
        ExitCode::from(EXIT_NONE)
    } else {
        ExitCode::SUCCESS
    };
    // The process ends now, which frees all this at once and not in pieces.
    std::mem::forget(snapshot);
    Ok(code)
}

/// Keeps what the filter lets through, gets to know the owners of it, and brings
/// it into order.
fn select<'a>(sockets: &'a [FoundSocket], filter: &Filter, people: &mut People) -> Vec<Row<'a>> {
    let mut rows = Vec::with_capacity(sockets.len());
    rows.extend(
        sockets
            .iter()
            .filter(|found| filter.admits_socket(found))
            .map(Row::new),
    );
    if filter.asks_for_people() {
        people.meet(rows.iter().flat_map(|row| &row.found.holders).copied());
        rows.retain_mut(|row| {
            row.owner = row
                .found
                .holders
                .iter()
                .copied()
                .find(|&pid| filter.admits_holder(pid, people.get(pid)));
            row.owner.is_some()
        });
        sort(&mut rows);
    } else {
        let owners: Vec<u32> = rows.iter().filter_map(|row| row.owner).collect();
        std::thread::scope(|scope| {
            if rows.len() >= ROWS_PER_THREAD {
                scope.spawn(|| sort(&mut rows));
            } else {
                sort(&mut rows);
            }
            people.meet(owners.into_iter());
        });
    }
    rows
}

/// By protocol, port and address, then by the peer and the owner.
fn sort(rows: &mut [Row]) {
    rows.sort_unstable_by(|one, other| {
        let (a, b) = (&one.found.socket, &other.found.socket);
        one.key.cmp(&other.key).then_with(|| {
            (a.local.ip, a.remote, one.owner, a.cookie).cmp(&(
                b.local.ip,
                b.remote,
                other.owner,
                b.cookie,
            ))
        })
    });
}

/// Says in one line what is not in the list.
pub(crate) fn warn(degradations: &[Degradation]) {
    if degradations.is_empty() {
        return;
    }
    let mut line = String::from("portreporter: not everything can be seen: ");
    for (index, degradation) in degradations.iter().enumerate() {
        if index > 0 {
            line.push_str("; ");
        }
        line.push_str(&degradation.why);
        line.push_str(", ");
        line.push_str(&degradation.consequence);
        if let Some(remedy) = &degradation.remedy {
            line.push_str(" (");
            line.push_str(remedy);
            line.push(')');
        }
    }
    line = event::text::escape(&line).into_owned();
    line.push('\n');
    // Nothing can be done about a standard error that is closed.
    let _ = io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use event::{Cookie, Socket};
    use proptest::prelude::*;

    use super::*;

    /// A TCP socket that waits for connections.
    pub(super) fn listener(local: &str, holders: &[u32]) -> FoundSocket {
        found(Protocol::Tcp, local, Some(TcpState::Listening), holders)
    }

    /// A TCP socket with a peer.
    pub(super) fn connection(
        local: &str,
        remote: &str,
        state: TcpState,
        holders: &[u32],
    ) -> FoundSocket {
        let mut found = found(Protocol::Tcp, local, Some(state), holders);
        found.socket.remote = Some(endpoint(remote));
        found
    }

    /// A UDP socket.
    pub(super) fn datagram(local: &str, remote: Option<&str>, holders: &[u32]) -> FoundSocket {
        let mut found = found(Protocol::Udp, local, None, holders);
        found.socket.remote = remote.map(endpoint);
        found
    }

    fn found(
        protocol: Protocol,
        local: &str,
        state: Option<TcpState>,
        holders: &[u32],
    ) -> FoundSocket {
        FoundSocket {
            socket: Socket {
                cookie: Some(Cookie(0x1f)),
                netns: Some(4_026_531_833),
                protocol,
                local: endpoint(local),
                remote: None,
                state,
            },
            holders: holders.to_vec(),
            owner: None,
            uid: Some(0),
        }
    }

    fn endpoint(text: &str) -> Endpoint {
        let address: std::net::SocketAddr = text.parse().unwrap();
        Endpoint::new(address.ip(), address.port())
    }

    #[test]
    fn sorted_by_protocol_port_and_address() {
        let sockets = [
            datagram("0.0.0.0:53", None, &[]),
            listener("[::]:80", &[]),
            listener("0.0.0.0:443", &[]),
            listener("10.0.0.1:80", &[]),
            listener("9.0.0.1:80", &[]),
        ];
        let mut rows: Vec<Row> = sockets.iter().map(Row::new).collect();
        sort(&mut rows);
        let order: Vec<String> = rows
            .iter()
            .map(|row| row.found.socket.local.to_string())
            .collect();
        let wanted = [
            "9.0.0.1:80",
            "10.0.0.1:80",
            "[::]:80",
            "0.0.0.0:443",
            "0.0.0.0:53",
        ];
        assert_eq!(order, wanted);
    }

    #[test]
    fn the_holder_that_is_asked_for_is_named() {
        let sockets = [listener("0.0.0.0:1", &[7, 9])];
        let args = ListArgs {
            pid: vec![9],
            ..ListArgs::default()
        };
        let rows = select(&sockets, &Filter::new(args), &mut People::new(false));
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].owner, Some(9));
    }

    #[test]
    fn the_arguments_are_read() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            list: ListArgs,
        }
        let parse =
            |line: &str| <Cli as clap::Parser>::try_parse_from(line.split(' ')).map(|cli| cli.list);
        let args = parse("list --port 22,8000-8099 --state time-wait,LISTEN --pid 1").unwrap();
        assert_eq!(args.port.len(), 2);
        assert_eq!(args.state, [TcpState::TimeWait, TcpState::Listening]);
        for wrong in [
            "list --port 65536",
            "list --port 9-1",
            "list --port -",
            "list --port 1,",
            "list --state OPEN",
            "list --pid -1",
            "list -v --json",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_short_key_agrees_with_the_long_order(
            is_tcp: (bool, bool),
            local: (IpAddr, u16),
            remote: Option<(IpAddr, u16)>,
            // Often the same, or else only the first parts are ever compared.
            other_local: Option<(IpAddr, u16)>,
            other_remote: Option<Option<(IpAddr, u16)>>,
        ) {
            let socket = |is_tcp, (ip, port), remote: Option<(IpAddr, u16)>| {
                let protocol = if is_tcp { Protocol::Tcp } else { Protocol::Udp };
                let mut found = found(protocol, "0.0.0.0:0", None, &[]);
                found.socket.local = Endpoint::new(ip, port);
                found.socket.remote = remote.map(|(ip, port)| Endpoint::new(ip, port));
                found
            };
            let one = socket(is_tcp.0, local, remote);
            let other = socket(
                is_tcp.1,
                other_local.unwrap_or(local),
                other_remote.unwrap_or(remote),
            );
            let long = |found: &FoundSocket| {
                let socket = &found.socket;
                (socket.protocol, socket.local.port, socket.local.ip, socket.remote)
            };
            let short = Row::key(&one).cmp(&Row::key(&other));
            prop_assert!(short.is_eq() || short == long(&one).cmp(&long(&other)));
        }
    }
}
