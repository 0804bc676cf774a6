//! `tcplife` of libbpf-tools: a line for each TCP connection that is over, with
//! its payload in kilobytes of two decimals.

use std::net::SocketAddr;

use super::lines::{Lines, Parse, installed, tracer};
use crate::completeness::sighting::{Sighting, What};

/// Starts it.
pub(in crate::completeness) fn start() -> anyhow::Result<Lines<Lives>> {
    let mut command = tracer(installed(&["tcplife"], "libbpf-tools")?);
    Lines::start("tcplife", command.arg("-w"), Lives)?
        .counts_losses()
        .attached()
}

/// A line has all that is ever said about a socket.
pub(in crate::completeness) struct Lives;

impl Parse for Lives {
    fn line(&mut self, line: &str, at: i64) -> Vec<Sighting> {
        let Some(found) = parse(line, at) else {
            return Vec::new();
        };
        let closed = Sighting {
            what: What::Closed(None),
            ..found.clone()
        };
        vec![found, closed]
    }
}

fn parse(line: &str, at: i64) -> Option<Sighting> {
    let mut fields: Vec<&str> = line.split_whitespace().collect();
    let pid = fields.first()?.parse().ok()?;
    // A name may have spaces in it; what follows has none.
    let rest = fields.split_off(fields.len().checked_sub(7)?.max(1));
    let [local_ip, local_port, remote_ip, remote_port, out, back, _] = rest[..] else {
        return None;
    };
    let end = |ip: &str, port: &str| -> Option<SocketAddr> {
        Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
    };
    Some(Sighting {
        at,
        protocol: "tcp".to_owned(),
        what: What::Found,
        local: Some(end(local_ip, local_port)?),
        remote: Some(end(remote_ip, remote_port)?),
        pid: Some(pid),
        sent: bytes(out),
        received: bytes(back),
        ..Sighting::default()
    })
}

/// Kilobytes of two decimals as bytes.
fn bytes(kilobytes: &str) -> Option<u64> {
    let (whole, part) = kilobytes.split_once('.')?;
    let hundredths = whole.parse::<u64>().ok()? * 100 + part.parse::<u64>().ok()?;
    Some((hundredths * 1024).div_ceil(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_life() {
        let said = Lives.line("7 a b 127.0.0.1 55010 127.0.0.2 80 4.88 0.00 0.06", 3);
        assert_eq!(said.len(), 2);
        assert_eq!(said[0].pid, Some(7));
        assert_eq!(said[1].what, What::Closed(None));
        // 4.88 are 5000 bytes, and a few others.
        assert!(said[0].sent.unwrap().abs_diff(5000) <= 6);
        assert_eq!(said[0].received, Some(0));
        assert!(Lives.line("PID COMM LADDR", 3).is_empty());
    }
}
