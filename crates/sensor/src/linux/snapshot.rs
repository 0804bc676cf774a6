//! Every socket that uses a port, in all network namespaces that can be
//! reached, with the processes that hold it: what is there now.
//!
//! Two things are read at the same time, because each takes a while: the tables
//! of our own namespace ([`sock_diag`], or [`procfs`] where there is no netlink)
//! and the descriptors and namespaces of all processes ([`task_file`], or
//! [`holders`] and [`netns`] where the kernel does not let us). With many
//! sockets the tables take longer; a caller can use that time
//! ([`snapshot_while`]). Then come the tables of the other namespaces: over
//! netlink from within, or, where entering is not permitted, from the files of a
//! process there.
//!
//! The parts are therefore not of the very same instant. A socket that was
//! made or closed meanwhile may be here without a holder; it is never here
//! with a wrong one, since inode numbers do not come back that soon.
//!
//! Nothing is remembered from one snapshot to the next: for that see
//! [`polling`](super::polling).

use std::collections::BTreeSet;
use std::path::PathBuf;

use event::{Degradation, Engine, Protocol};
use rustc_hash::FxHashSet;

use super::holders::{self, Held, Holders};
use super::netns::{self, Namespace, Namespaces};
use super::others;
use super::procfs;
use super::sock_diag::{self, BOTH, Table, TableSocket};
use super::task_file;
use crate::{Error, FoundSocket, Snapshot};

/// Every socket of the machine that can be seen now, by the best means that
/// works without a program in the kernel.
pub fn snapshot() -> Result<Snapshot, Error> {
    snapshot_while(|_| {})
}

/// The same, for a caller who will look at the holders afterwards: who holds
/// sockets is known before the tables are read, and until they are, `idle` is
/// called with one process after another that holds sockets, of any kind. How
/// many those are depends on how long the tables take; it may be none.
pub fn snapshot_while(mut idle: impl FnMut(u32)) -> Result<Snapshot, Error> {
    match View::system(Engine::SockDiag).snapshot_while(&mut idle) {
        Ok(snapshot) => Ok(snapshot),
        Err(reason) => {
            let mut snapshot = View::system(Engine::Proc).snapshot_while(&mut idle)?;
            snapshot.degradations.insert(0, without_netlink(&reason));
            Ok(snapshot)
        }
    }
}

/// Netlink is not to be had, and the files below `/proc` are read instead.
pub(crate) fn without_netlink(reason: &Error) -> Degradation {
    let why = match std::error::Error::source(reason) {
        Some(source) => format!("{reason}: {source}"),
        None => reason.to_string(),
    };
    Degradation {
        what: "sock_diag".to_owned(),
        why,
        consequence: "the tables below /proc/net are read instead, which do not number sockets"
            .to_owned(),
        remedy: Some("load the modules tcp_diag, udp_diag and inet_diag".to_owned()),
    }
}

/// Where and how to look.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// [`Engine::SockDiag`] asks over netlink, everything else reads files.
    pub(crate) engine: Engine,
    /// The root directory, below which namespaces are mounted.
    pub(crate) root: PathBuf,
    /// Where `/proc` is.
    pub(crate) proc: PathBuf,
    /// Whether the kernel may be asked to walk through the descriptors; only
    /// for the machine that we run on.
    pub(crate) kernel_walk: bool,
    /// Which of TCP and UDP are wanted.
    pub(crate) protocols: &'static [Protocol],
    /// Whether sockets that are neither are wanted.
    pub(crate) has_others: bool,
}

/// The tables of all namespaces that could be reached.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Their sockets.
    pub(crate) sockets: Vec<TableSocket>,
    /// What could not be looked at.
    pub(crate) degradations: Vec<Degradation>,
    /// The namespaces.
    pub(crate) namespaces: Namespaces,
    /// Those, by inode number, whose tables are here as a whole.
    pub(crate) whole: BTreeSet<u32>,
}

/// What is known of the processes.
struct Walk {
    holders: Holders,
    /// The processes that the kernel looked into, if it did the walk.
    by_kernel: Option<BTreeSet<u32>>,
    /// The processes that hold sockets, if the kernel did the walk.
    busy: Vec<u32>,
    namespaces: Namespaces,
    degradations: Vec<Degradation>,
}

impl View {
    /// The machine that we run on.
    pub(crate) fn system(engine: Engine) -> Self {
        Self {
            engine,
            root: PathBuf::from("/"),
            proc: PathBuf::from("/proc"),
            kernel_walk: engine == Engine::SockDiag,
            protocols: BOTH,
            has_others: false,
        }
    }

    /// Tables and holders, joined.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        self.snapshot_while(&mut |_| {})
    }

    /// The same, with something to do meanwhile; see [`snapshot_while`].
    fn snapshot_while(&self, idle: &mut dyn FnMut(u32)) -> Result<Snapshot, Error> {
        let own = netns::own(&self.proc);
        let (tcp, udp, walk) = std::thread::scope(|scope| {
            let tcp = scope.spawn(|| self.own_table(&[Protocol::Tcp], own));
            let walk = self.walk(own);
            let udp = self.own_table(&[Protocol::Udp], own);
            for &pid in walk.iter().flat_map(|walk| &walk.busy) {
                if tcp.is_finished() {
                    break;
                }
                idle(pid);
            }
            let tcp = tcp.join().unwrap_or_else(|_| Err(thread_failed()));
            (tcp, udp, walk)
        });
        let (own, walk) = (tcp?.and(udp?).and(self.others("self", own)), walk?);
        let tables = self.complete(own, &walk.namespaces);
        let mut degradations = tables.degradations;
        degradations.extend(walk.degradations);
        let (sockets, hidden) = self.join(tables.sockets, walk.holders, walk.by_kernel.as_ref())?;
        degradations.extend(hidden_processes(hidden));
        Ok(Snapshot {
            sockets,
            namespaces: tables.whole,
            existing_namespaces: None,
            has_others: self.has_others,
            degradations,
        })
    }

    /// Gives every socket its holders, and leaves out what comes twice.
    ///
    /// Where the kernel did the walk, and sockets with an inode are left without
    /// a holder, the processes that it did not look into are looked into on
    /// foot. That takes about as long as all the rest here, so it begins, on
    /// another thread, when the first such socket is met. Also says how many
    /// processes could then not be looked into.
    fn join(
        &self,
        tables: Vec<TableSocket>,
        mut holders: Holders,
        mut by_kernel: Option<&BTreeSet<u32>>,
    ) -> Result<(Vec<FoundSocket>, usize), Error> {
        let mut sockets = Vec::with_capacity(tables.len());
        let mut nobodys = FxHashSet::default();
        let mut without = Vec::new();
        let others = std::thread::scope(|scope| {
            let mut search = None;
            for table in tables {
                let holders = match holders.take(table.inode) {
                    Held::By(holders) => holders,
                    Held::ByNobody
                        if table
                            .socket
                            .cookie
                            .is_none_or(|cookie| nobodys.insert(cookie)) =>
                    {
                        if table.inode != 0 {
                            without.push((sockets.len(), table.inode));
                            if let Some(known) = by_kernel.take() {
                                search = Some(scope.spawn(|| self.walk_others(known)));
                            }
                        }
                        Vec::new()
                    }
                    Held::ByNobody | Held::Again => continue,
                };
                sockets.push(FoundSocket {
                    socket: table.socket,
                    holders,
                    owner: None,
                    uid: table.uid,
                });
            }
            search.map(|search| search.join().unwrap_or_else(|_| Err(thread_failed())))
        });
        let others = others.transpose()?.unwrap_or_default();
        for (place, inode) in without {
            if let (Some(found), Some(pid)) = (sockets.get_mut(place), others.first(inode)) {
                found.holders.push(pid);
            }
        }
        Ok((sockets, others.hidden))
    }

    /// Looks on foot into the processes that are not known.
    fn walk_others(&self, known: &BTreeSet<u32>) -> Result<Holders, Error> {
        let mut pids = procfs::processes(&self.proc)?;
        pids.retain(|pid| !known.contains(pid));
        holders::walk(&self.proc, &pids)
    }

    /// Holders and namespaces: by the kernel if it lets us, else on foot.
    fn walk(&self, own: Option<u32>) -> Result<Walk, Error> {
        if self.kernel_walk
            && let Some(own) = own
            && let Ok(walked) = task_file::walk(own)
        {
            let (root, proc) = (&self.root, &self.proc);
            let mut busy: Vec<u32> = walked.sockets.iter().map(|&(_, pid)| pid).collect();
            busy.dedup();
            return Ok(Walk {
                holders: Holders::new(&walked.sockets, 0),
                busy,
                by_kernel: Some(walked.processes),
                namespaces: netns::with_mounted(root, proc, Some(own), walked.namespaces),
                degradations: Vec::new(),
            });
        }
        let pids = procfs::processes(&self.proc)?;
        let (holders, degradations) = self.holders(&pids)?;
        Ok(Walk {
            holders,
            by_kernel: None,
            busy: Vec::new(),
            namespaces: netns::find(&self.root, &self.proc, &pids),
            degradations,
        })
    }

    /// The tables alone, without a look into the processes' descriptors.
    pub(crate) fn tables(&self) -> Result<Tables, Error> {
        let netns = netns::own(&self.proc);
        let own = self
            .own_table(self.protocols, netns)?
            .and(self.others("self", netns));
        let pids = procfs::processes(&self.proc)?;
        Ok(self.complete(own, &netns::find(&self.root, &self.proc, &pids)))
    }

    /// Who holds what now, on foot, and who could not be looked into.
    pub(crate) fn holders_now(&self) -> Result<(Holders, Vec<Degradation>), Error> {
        self.holders(&procfs::processes(&self.proc)?)
    }

    fn holders(&self, pids: &[u32]) -> Result<(Holders, Vec<Degradation>), Error> {
        let holders = holders::walk(&self.proc, pids)?;
        let mut degradations: Vec<_> = hidden_processes(holders.hidden).into_iter().collect();
        // Each PID namespace has a process 1.
        if pids.first().is_some_and(|&first| first != 1) {
            degradations.push(Degradation {
                what: "processes".to_owned(),
                why: format!(
                    "{} does not show the processes of other users",
                    self.proc.display()
                ),
                consequence: "their sockets have no owner".to_owned(),
                remedy: Some("run as root or mount it without hidepid".to_owned()),
            });
        }
        Ok((holders, degradations))
    }

    fn own_table(&self, protocols: &[Protocol], netns: Option<u32>) -> Result<Table, Error> {
        match self.engine {
            Engine::SockDiag => sock_diag::dump(protocols, netns),
            // Not `proc/net`: in a thread that is elsewhere it is the process'
            // all the same.
            Engine::Ebpf | Engine::Proc => {
                procfs::tables(&self.proc.join("self/net"), protocols, netns)
            }
        }
    }

    /// The sockets that are neither TCP nor UDP, of the namespace of a process,
    /// or of the thread that asks (`thread-self`). They have no number here.
    fn others(&self, process: &str, netns: Option<u32>) -> Table {
        if self.has_others {
            others::tables(&self.proc.join(process).join("net"), netns)
        } else {
            Table::default()
        }
    }

    /// Adds the tables of the other namespaces to those of our own.
    fn complete(&self, own: Table, namespaces: &Namespaces) -> Tables {
        let mut unstable = own.unstable;
        let mut sockets = own.sockets;
        let mut missing = Vec::new();
        let mut whole: BTreeSet<u32> = namespaces.own.into_iter().collect();
        for namespace in &namespaces.others {
            match self.other_table(namespace) {
                Ok(table) => {
                    unstable |= table.unstable;
                    whole.insert(namespace.inode);
                    sockets.extend(table.sockets);
                }
                // One that has gone meanwhile has no sockets.
                Err(_) if namespace.is_there() => missing.push(namespace.inode.to_string()),
                Err(_) => {}
            }
        }
        let mut degradations = Vec::new();
        if !missing.is_empty() {
            degradations.push(Degradation {
                what: "network namespaces".to_owned(),
                why: format!(
                    "{} cannot be entered: {}",
                    count(missing.len(), "namespace", "namespaces"),
                    missing.join(", ")
                ),
                consequence: "the sockets in there are not seen".to_owned(),
                remedy: Some("run as root or grant CAP_SYS_ADMIN".to_owned()),
            });
        }
        if unstable {
            whole.clear();
            degradations.push(Degradation {
                what: "sock_diag".to_owned(),
                why: "the kernel's table kept changing while it was read".to_owned(),
                consequence: "some sockets may be missing".to_owned(),
                remedy: None,
            });
        }
        Tables {
            sockets,
            degradations,
            namespaces: namespaces.clone(),
            whole,
        }
    }

    fn other_table(&self, namespace: &Namespace) -> Result<Table, Error> {
        let netns = Some(namespace.inode);
        let files = |process: &str| {
            let directory = self.proc.join(process).join("net");
            Ok(procfs::tables(&directory, self.protocols, netns)?.and(self.others(process, netns)))
        };
        let ask =
            || Ok(sock_diag::dump(self.protocols, netns)?.and(self.others("thread-self", netns)));
        let from_within = match (self.engine, namespace.pid) {
            (Engine::SockDiag, _) => netns::within(namespace, ask).ok(),
            // These files are those of the namespace that the thread is in.
            (_, None) => netns::within(namespace, || files("thread-self")).ok(),
            (_, Some(_)) => None,
        };
        match (from_within, namespace.pid) {
            (Some(table), _) => Ok(table),
            (None, Some(pid)) => files(&pid.to_string()),
            (None, None) => Err(thread_failed()),
        }
    }
}

/// Processes that may not be looked into.
fn hidden_processes(number: usize) -> Option<Degradation> {
    let (whose, remedy) = if rustix::process::geteuid().is_root() {
        (
            "with more privileges than ours",
            "run with all capabilities",
        )
    } else {
        (
            "of other users",
            "run as root or grant CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
        )
    };
    (number > 0).then(|| Degradation {
        what: "owners".to_owned(),
        why: format!(
            "{} {whose} cannot be looked into",
            count(number, "process", "processes")
        ),
        consequence: "their sockets have no owner, and what is in network namespaces of their \
                      own is not seen"
            .to_owned(),
        remedy: Some(remedy.to_owned()),
    })
}

fn thread_failed() -> Error {
    Error::System {
        what: "cannot look into a network namespace".to_owned(),
        source: std::io::ErrorKind::Other.into(),
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::fs::symlink;

    use event::TcpState;

    use super::*;

    #[test]
    fn both_engines_find_our_sockets_and_us() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let ports = [
            (Protocol::Tcp, listener.local_addr().unwrap().port()),
            (Protocol::Udp, udp.local_addr().unwrap().port()),
        ];
        for engine in [Engine::SockDiag, Engine::Proc] {
            let snapshot = View::system(engine).snapshot().unwrap();
            for (protocol, port) in ports {
                let found = snapshot
                    .sockets
                    .iter()
                    .find(|found| {
                        found.socket.protocol == protocol
                            && found.socket.local.port == port
                            && found.socket.remote.is_none()
                            && found.holders == [std::process::id()]
                    })
                    .unwrap();
                assert_eq!(found.uid, Some(rustix::process::geteuid().as_raw()));
                assert_eq!(found.socket.cookie.is_some(), engine == Engine::SockDiag);
                assert!(found.socket.netns.is_some());
            }
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn other_namespaces_are_read_through_their_processes() {
        let tree = tempfile::tempdir().unwrap();
        let proc = tree.path().join("proc");
        for (pid, inode, port) in [("self", 1, "0016"), ("1", 1, ""), ("9", 2, "0050")] {
            let directory = proc.join(pid);
            for part in ["ns", "net", "fd"] {
                std::fs::create_dir_all(directory.join(part)).unwrap();
            }
            symlink(format!("net:[{inode}]"), directory.join("ns/net")).unwrap();
            symlink(format!("socket:[{inode}7]"), directory.join("fd/3")).unwrap();
            let line = format!("0: 00000000:{port} 00000000:0000 0A 0:0 0:0 0 5 0 {inode}7 1\n");
            std::fs::write(directory.join("net/tcp"), line).unwrap();
            std::fs::write(directory.join("net/udp"), "").unwrap();
        }
        let view = View {
            protocols: BOTH,
            has_others: false,
            engine: Engine::Proc,
            root: tree.path().to_owned(),
            proc,
            kernel_walk: false,
        };
        let snapshot = view.snapshot().unwrap();
        let shown: Vec<_> = snapshot
            .sockets
            .iter()
            .map(|found| {
                (
                    found.socket.netns,
                    found.socket.local.port,
                    found.holders.clone(),
                )
            })
            .collect();
        assert_eq!(shown, [(Some(1), 22, vec![1]), (Some(2), 80, vec![9])]);
        assert!(
            snapshot
                .sockets
                .iter()
                .all(|found| found.socket.state == Some(TcpState::Listening))
        );
        assert_eq!(snapshot.degradations, []);
    }
}
