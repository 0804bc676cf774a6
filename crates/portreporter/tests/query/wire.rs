//! A bad wire between two network namespaces.
//!
//! Kernels without netem cannot lose or delay packets by themselves. So each
//! namespace gets a TUN device, and a thread carries the packets from one to
//! the other, by a rule of the test's. On both sides are real kernels, real
//! sockets and the real program; only the wire is made up.
//!
//! A rule sees where a packet goes and how many of its kind were before it, not
//! when: whatever the machine is doing, the same packets are lost. Delays are
//! kept in a queue and end by the clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::stage::{ip, sysctl};

/// Why there can be no wire here.
pub(crate) fn missing() -> Option<&'static str> {
    let device = File::options().read(true).write(true).open(TUN);
    device.err().map(|_| "needs /dev/net/tun")
}

/// Makes devices whose packets come from, and go to, a program.
const TUN: &str = "/dev/net/tun";

/// The far end's address. Ours is 10.9.0.1.
pub(crate) const FAR: &str = "10.9.0.2";

/// What a rule is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// It goes to the far end.
    pub(crate) away: bool,
    pub(crate) carries: Carries,
    /// The port at the far end that it goes to, comes from, or tells of; 0 for
    /// the later fragments of a datagram, which have none.
    pub(crate) port: u16,
}

/// What is in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Carries {
    Tcp,
    Udp,
    /// An ICMP message about a packet.
    Icmp,
}

/// What becomes of a packet.
pub(crate) enum Fate {
    Lost,
    /// It arrives after each of these times: several are duplicates.
    Arrives(Vec<Duration>),
}

/// It arrives at once.
pub(crate) fn passes() -> Fate {
    Fate::Arrives(vec![Duration::ZERO])
}

/// It arrives after so many milliseconds.
pub(crate) fn after(millis: u64) -> Fate {
    Fate::Arrives(vec![Duration::from_millis(millis)])
}

/// The wire. It is cut when this is dropped.
pub(crate) struct Wire {
    far: OwnedFd,
    /// The carrier ends when its other end is closed.
    stop: Option<io::PipeWriter>,
    carrier: Option<JoinHandle<()>>,
    seen: Arc<Mutex<HashMap<Kind, u32>>>,
}

impl Wire {
    /// Lays a wire on which `rule` decides what becomes of each packet, by its
    /// kind and by how many of that kind were before it.
    pub(crate) fn new(rule: impl Fn(Kind, u32) -> Fate + Send + 'static) -> Self {
        let near = device("near", "10.9.0.1/24");
        let far = thread::spawn(|| {
            // SAFETY: a new network namespace changes no memory, file descriptor
            // or signal that other threads rely on.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a namespace");
            ip("link set lo up");
            // One port is told of as often as it is asked for.
            sysctl("net.ipv4.icmp_ratelimit", "0");
            let device = device("far", "10.9.0.2/24");
            let namespace = File::open("/proc/thread-self/ns/net").expect("a namespace");
            (device, OwnedFd::from(namespace))
        });
        let (other, far) = far.join().expect("the far end is there");
        let (stopped, stop) = io::pipe().expect("a pipe");
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let mut carrier = Carrier {
            ends: [near, other],
            seen: Arc::clone(&seen),
            under_way: BinaryHeap::new(),
            sent: 0,
            rule: Box::new(rule),
        };
        Self {
            far,
            stop: Some(stop),
            carrier: Some(thread::spawn(move || carrier.carry(&stopped))),
            seen,
        }
    }

    /// Does something at the far end. Sockets that are opened there stay there.
    pub(crate) fn over_there<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.far.as_fd(), kind).expect("it may be entered");
                act()
            });
            there.join().expect("it is done")
        })
    }

    /// How many packets of that kind there were, lost ones included.
    pub(crate) fn number(&self, kind: Kind) -> u32 {
        let seen = self.seen.lock().expect("no panic");
        seen.get(&kind).copied().unwrap_or(0)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.carrier.take().map(JoinHandle::join);
        if !thread::panicking()
            && let Some(ended) = ended
        {
            ended.expect("the wire held");
        }
    }
}

/// A TUN device of the calling thread's namespace, up, with that address.
fn device(name: &str, address: &str) -> File {
    let options = File::options().read(true).write(true).open(TUN);
    let device = options.expect("there are TUN devices");
    let mut request: libc::ifreq = {
        // SAFETY: it consists of numbers, for which zero is a value.
        unsafe { std::mem::zeroed() }
    };
    for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([byte]);
    }
    // Packets without a header of the device's.
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("two small flags");
    // SAFETY: the descriptor is open, and the request, which ends with a zero as
    // the name is shorter than its room, lives as long as the call.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert_eq!(made, 0, "{}", io::Error::last_os_error());
    ip(&format!("addr add {address} dev {name}"));
    ip(&format!("link set {name} up"));
    device
}

struct Carrier {
    /// Ours, and the far one.
    ends: [File; 2],
    seen: Arc<Mutex<HashMap<Kind, u32>>>,
    /// The first to arrive comes first.
    under_way: BinaryHeap<Reverse<Passage>>,
    sent: u64,
    rule: Box<dyn Fn(Kind, u32) -> Fate + Send>,
}

/// A packet under way. Of two that arrive together the one that was sent first
/// is first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Passage {
    due: Instant,
    number: u64,
    /// To which end.
    to: usize,
    packet: Vec<u8>,
}

impl Carrier {
    fn carry(&mut self, stopped: &io::PipeReader) {
        loop {
            let now = Instant::now();
            while let Some(Reverse(first)) = self.under_way.peek()
                && first.due <= now
                && let Some(Reverse(Passage { to, packet, .. })) = self.under_way.pop()
            {
                // What the other side has no room for is lost, as on any wire.
                let _ = self.ends[to].write(&packet);
            }
            let next = self.under_way.peek();
            let wait = next.map(|Reverse(next)| next.due.saturating_duration_since(now));
            let wait = wait.map(|wait| Timespec::try_from(wait).expect("a short time"));
            let mut ready = [
                PollFd::new(&self.ends[0], PollFlags::IN),
                PollFd::new(&self.ends[1], PollFlags::IN),
                PollFd::new(stopped, PollFlags::IN),
            ];
            match poll(&mut ready, wait.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled.expect("they can be waited for"),
            };
            let [near, far, stop] = ready.map(|end| !end.revents().is_empty());
            if stop {
                return;
            }
            for (is_ready, from) in [(near, 0), (far, 1)] {
                if is_ready {
                    self.take(from);
                }
            }
        }
    }

    /// Takes a packet from one end and decides when it comes out at the other.
    fn take(&mut self, from: usize) {
        let mut packet = vec![0; 1 << 16];
        let length = self.ends[from].read(&mut packet).expect("a packet");
        packet.truncate(length);
        // IPv6 sends of its own accord; nobody here speaks it.
        let Some(kind) = kind(&packet, from == 0) else {
            return;
        };
        let before = {
            let mut seen = self.seen.lock().expect("no panic");
            let number = seen.entry(kind).or_default();
            *number += 1;
            *number - 1
        };
        if let Fate::Arrives(times) = (self.rule)(kind, before) {
            for time in times {
                self.sent += 1;
                self.under_way.push(Reverse(Passage {
                    due: Instant::now() + time,
                    number: self.sent,
                    to: 1 - from,
                    packet: packet.clone(),
                }));
            }
        }
    }
}

/// What an IPv4 packet is (RFC 791, 792).
fn kind(packet: &[u8], away: bool) -> Option<Kind> {
    const ICMP: u8 = 1;
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let first = packet.first().filter(|first| *first >> 4 == 4)?;
    let content = packet.get(usize::from(first & 0xf) * 4..)?;
    let (protocol, offset) = (packet.get(9)?, u16_at(packet, 6)? & 0x1fff);
    let carries = match *protocol {
        TCP => Carries::Tcp,
        UDP => Carries::Udp,
        ICMP => {
            // It quotes the packet that it is about, which went the other way.
            let about = kind(content.get(8..)?, !away)?;
            return Some(Kind {
                away,
                carries: Carries::Icmp,
                port: about.port,
            });
        }
        _ => return None,
    };
    let port = match offset {
        0 => u16_at(content, if away { 2 } else { 0 })?,
        _ => 0,
    };
    Some(Kind {
        away,
        carries,
        port,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}
