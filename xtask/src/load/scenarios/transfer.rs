//! Payload that takes another way than `send`: how many bytes were moved?

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::bail;
use rustix::net::{SendFlags, sockopt};

use super::fact::{Fact, Kind};
use super::stage::{
    ANY_V4, Pair, accepted, address, connected, listener, needs, own_network, read_to_the_end,
    receive, send, tcp,
};

/// What a file holds, and is not a multiple of anything.
const CONTENT: usize = 300_007;

/// A file goes out with `sendfile`.
pub(super) fn sendfile() -> anyhow::Result<()> {
    let mut file = content()?;
    let pair = Pair::new(ANY_V4)?;
    pair.tell(CONTENT as u64, 0)?;
    file.rewind()?;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let reader = scope.spawn(|| receive(&pair.server, CONTENT));
        let mut rest = CONTENT;
        while rest > 0 {
            rest -= move_file(&pair.client, &file, rest)?;
        }
        reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))?
    })?;
    pair.close()
}

/// A file goes through a pipe into a socket and out of the other end into a
/// pipe, all with `splice`.
pub(super) fn splice() -> anyhow::Result<()> {
    const COUNT: usize = 50_021;
    let (out_of, into) = std::io::pipe()?;
    let (back_out_of, back_into) = std::io::pipe()?;
    let (out_of, into): (OwnedFd, OwnedFd) = (out_of.into(), into.into());
    let (back_out_of, back_into): (OwnedFd, OwnedFd) = (back_out_of.into(), back_into.into());
    let pair = Pair::new(ANY_V4)?;
    pair.tell(COUNT as u64, 0)?;
    let file: OwnedFd = {
        let mut file = content()?;
        file.rewind()?;
        file.into()
    };
    move_all(&file, &into, COUNT)?;
    move_all(&out_of, &pair.client, COUNT)?;
    move_all(&pair.server, &back_into, COUNT)?;
    drop(back_into);
    let mut file = File::from(back_out_of);
    let back = std::io::copy(&mut file, &mut std::io::sink())?;
    if back != COUNT as u64 {
        bail!("{back} bytes came back");
    }
    pair.close()
}

/// Payload both ways, more than any buffer holds, then half-closed.
pub(super) fn large() -> anyhow::Result<()> {
    const FORTH: usize = 20_000_003;
    const BACK: usize = 1_000_033;
    let pair = Pair::new(ANY_V4)?;
    pair.tell(FORTH as u64, BACK as u64)?;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let reader = scope.spawn(|| -> anyhow::Result<()> {
            receive(&pair.server, FORTH)?;
            Ok(send(&pair.server, &vec![1; BACK])?)
        });
        send(&pair.client, &vec![2; FORTH])?;
        receive(&pair.client, BACK)?;
        reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))?
    })?;
    pair.close()
}

/// Urgent data is payload too.
pub(super) fn urgent() -> anyhow::Result<()> {
    let pair = Pair::new(ANY_V4)?;
    pair.tell(4, 0)?;
    sockopt::set_socket_oobinline(&pair.server, true)?;
    rustix::net::send(&pair.client, b"now", SendFlags::empty())?;
    rustix::net::send(&pair.client, b"!", SendFlags::OOB)?;
    pair.close()
}

/// Data in the SYN: `sendto` connects, sends and is not `connect`.
pub(super) fn fast_open() -> anyhow::Result<()> {
    let (listener, to) = fast_open_listener()?;
    let client = tcp(ANY_V4)?;
    let payload = b"in the SYN";
    let flags = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned());
    needs(
        "TCP Fast Open",
        rustix::net::sendto(&client, payload, flags, &to).map_err(Into::into),
    )?;
    finish_fast_open(&listener, client, payload)
}

/// Data in the SYN: `connect` only takes note of the address.
pub(super) fn fast_open_connect() -> anyhow::Result<()> {
    let (listener, to) = fast_open_listener()?;
    let client = tcp(ANY_V4)?;
    set_option(&client, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
    rustix::net::connect(&client, &to)?;
    let payload = b"later";
    send(&client, payload)?;
    finish_fast_open(&listener, client, payload)
}

fn fast_open_listener() -> anyhow::Result<(OwnedFd, std::net::SocketAddr)> {
    own_network()?;
    // Client and server, without the cookie that would come with a first SYN.
    needs(
        "TCP Fast Open",
        std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "519"),
    )?;
    let listener = listener(ANY_V4)?;
    set_option(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16)?;
    Fact::listen("listener", &listener)?.tell()?;
    let to = address(&listener)?;
    Ok((listener, to))
}

fn finish_fast_open(listener: &OwnedFd, client: OwnedFd, payload: &[u8]) -> anyhow::Result<()> {
    let count = payload.len() as u64;
    let server = accepted(listener)?;
    Fact::connect("client", &client)?.bytes(count, 0).tell()?;
    Fact::accept("server", &server)?.bytes(0, count).tell()?;
    drop(client);
    read_to_the_end(&server)?;
    Ok(())
}

/// Multipath TCP: the socket that the process holds is not the one on the
/// wire, which only its ends tell.
pub(super) fn multipath() -> anyhow::Result<()> {
    let listener = multipath_socket()?;
    rustix::net::bind(&listener, &ANY_V4)?;
    rustix::net::listen(&listener, 16)?;
    let client = multipath_socket()?;
    rustix::net::connect(&client, &address(&listener)?)?;
    let server = accepted(&listener)?;
    for (kind, role, socket) in [
        (Kind::Listen, "listener", &listener),
        (Kind::Connect, "client", &client),
        (Kind::Accept, "server", &server),
    ] {
        let mut fact = Fact::of(kind, role, socket)?;
        fact.cookie = None;
        fact.tell()?;
    }
    send(&client, b"paths")?;
    receive(&server, 5)?;
    drop(client);
    read_to_the_end(&server)?;
    Ok(())
}

fn multipath_socket() -> anyhow::Result<OwnedFd> {
    let flags = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: makes a descriptor, which is checked and owned below.
    let raw = unsafe { libc::socket(libc::AF_INET, flags, libc::IPPROTO_MPTCP) };
    let made = match raw {
        -1 => Err(std::io::Error::last_os_error()),
        // SAFETY: it is new and nobody else's.
        raw => Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
    };
    needs("MPTCP", made)
}

/// Connections that move data at once, in pipes of one process and the next.
pub(super) fn relay() -> anyhow::Result<()> {
    let target = listener(ANY_V4)?;
    Fact::listen("target listener", &target)?.tell()?;
    let front = Pair::new(ANY_V4)?;
    front.tell(CONTENT as u64, 0)?;
    let back = connected(address(&target)?)?;
    let end = accepted(&target)?;
    Fact::connect("back", &back)?
        .bytes(CONTENT as u64, 0)
        .tell()?;
    Fact::accept("end", &end)?.bytes(0, CONTENT as u64).tell()?;
    let (out_of, into) = std::io::pipe()?;
    let (out_of, into): (OwnedFd, OwnedFd) = (out_of.into(), into.into());
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let source = scope.spawn(|| send(&front.client, &vec![5; CONTENT]));
        let sink = scope.spawn(|| receive(&end, CONTENT));
        let mut rest = CONTENT;
        while rest > 0 {
            let part = move_some(&front.server, &into, rest.min(1 << 14))?;
            move_all(&out_of, &back, part)?;
            rest -= part;
        }
        source
            .join()
            .map_err(|_| anyhow::anyhow!("the source panicked"))??;
        sink.join()
            .map_err(|_| anyhow::anyhow!("the sink panicked"))?
    })?;
    drop(back);
    read_to_the_end(&end)?;
    front.close()
}

/// A file of [`CONTENT`] bytes without a name.
fn content() -> anyhow::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(&vec![9; CONTENT])?;
    Ok(file)
}

fn move_file(to: &OwnedFd, from: &File, count: usize) -> anyhow::Result<usize> {
    Ok(rustix::fs::sendfile(to, from, None, count)?)
}

fn move_all(from: &OwnedFd, to: &OwnedFd, count: usize) -> anyhow::Result<()> {
    let mut rest = count;
    while rest > 0 {
        rest -= move_some(from, to, rest)?;
    }
    Ok(())
}

fn move_some(from: &OwnedFd, to: &OwnedFd, count: usize) -> anyhow::Result<usize> {
    // SAFETY: both descriptors are open, and no offsets are given.
    let moved = unsafe {
        libc::splice(
            from.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            count,
            0,
        )
    };
    match usize::try_from(moved) {
        Ok(0) => bail!("nothing left to splice"),
        Ok(moved) => Ok(moved),
        Err(_) => Err(std::io::Error::last_os_error().into()),
    }
}

/// Sets an option that is a number.
pub(super) fn set_option(
    socket: &OwnedFd,
    level: i32,
    name: i32,
    value: i32,
) -> anyhow::Result<()> {
    // SAFETY: `value` outlives the call, which reads as many bytes as it has.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            u32::try_from(size_of_val(&value))?,
        )
    };
    if code != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(())
}
