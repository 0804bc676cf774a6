//! Many processes that hold sockets open.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

/// The processes; they end when this is dropped.
pub(super) struct Crowd {
    members: Vec<Child>,
}

impl Crowd {
    /// Starts so many processes, each with so many UDP sockets and so many
    /// loopback connections, both ends, from one listener; returns when all
    /// sockets are open.
    pub(super) fn gather(processes: u32, udp: u32, pairs: u32) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let mut crowd = Self {
            members: Vec::new(),
        };
        for _ in 0..processes {
            let member = Command::new(&program)
                .arg("hold")
                .args(["--udp", &udp.to_string(), "--pairs", &pairs.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("hold: cannot be started")?;
            crowd.members.push(member);
        }
        for member in &mut crowd.members {
            let output = member.stdout.as_mut().context("hold: no pipe")?;
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line)?;
            if line != "ready\n" {
                bail!("hold: not ready");
            }
        }
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // The end of its input is a member's sign to go; first all, then wait.
        for member in &mut self.members {
            drop(member.stdin.take());
        }
        for member in &mut self.members {
            // There is nobody to tell.
            let _ = member.wait();
        }
    }
}
