//! The interactive mode: a prompt, a handful of commands, shortcuts for the
//! usual questions.
//!
//! On a terminal lines are edited, remembered and completed; from a pipe or a
//! file they are read as they are, without prompts, so that a script can type.
//! Ctrl-C takes back a line or stops a query; Ctrl-D, or the end of the input,
//! ends the mode.
//!
//! What the user types is remembered until the mode ends, and not on disk:
//! names of hosts are nobody else's business.

mod command;
mod input;

use std::sync::atomic::Ordering;

use self::command::{Command, Setting, Shortcut};
use self::input::{Input, Typed};
use super::arguments::{Options, Ports, Protocols};
use super::query::Desk;
use crate::tee::Tee;

/// Who is asked if nobody is named.
const DEFAULT_NODE: &str = "127.0.0.1";

const HELP: &str = "\
Commands:

  node NAME     n   sets the host to query; without a name, shows it
  query [WHAT]  q   queries the port that is set, or a service:
                    dns ftp imap ipsec isa ldap l2tp mail pop3 rpc smtp snmp
                    sql tftp
  set all           shows the current option values
  set OPTION=VALUE  changes one:
                    port (e)      80, or a range 1:1024, or a list 25,80
                    protocol (p)  tcp, udp or both
                    sport (sp)    the source port; 0 is ephemeral
                    cn            the SNMP community, as !public! or public
  set nr            reverse name lookup, on or off
  set sl            slow link, on or off
  help          ?   shows this
  exit              ends the interactive mode (Ctrl-D does, too)
";

/// Asks for commands until they end.
pub(super) fn run(
    desk: &Desk<'_>,
    out: &mut Tee,
    node: Option<String>,
    options: Options,
) -> anyhow::Result<()> {
    let mut session = Session {
        desk,
        node: node.unwrap_or_else(|| DEFAULT_NODE.to_owned()),
        options,
    };
    let mut input = Input::open()?;
    out.line("Portqry Interactive Mode");
    out.blank();
    out.line("Type 'help' for a list of commands");
    out.blank();
    session.show(out);
    while !out.is_pointless() {
        let line = match input.read()? {
            Typed::Line(line) => line,
            Typed::Nothing => continue,
            Typed::End => break,
        };
        out.log_only(&format!("> {line}"));
        match command::parse(&line) {
            Ok(None) => {}
            Ok(Some(Command::Exit)) => break,
            Ok(Some(command)) => {
                // What was stopped before does not stop this.
                session.desk.stop.store(false, Ordering::Relaxed);
                session.obey(out, command);
            }
            Err(error) => {
                out.line(&error.to_string());
                out.blank();
            }
        }
    }
    Ok(())
}

struct Session<'a> {
    desk: &'a Desk<'a>,
    node: String,
    options: Options,
}

impl Session<'_> {
    fn obey(&mut self, out: &mut Tee, command: Command) {
        match command {
            Command::Help => {
                out.bytes(HELP.as_bytes());
                out.blank();
            }
            Command::Node(None) | Command::Show => self.show(out),
            Command::Node(Some(node)) => {
                self.node = node;
                out.line(&format!("Default Node: {}", self.node));
                out.blank();
            }
            Command::Set(setting) => self.set(out, setting),
            Command::Query(None) => {
                self.desk.ask(out, &self.node, &self.options);
                out.blank();
            }
            Command::Query(Some(shortcut)) => self.shortcut(out, shortcut),
            Command::Exit => {}
        }
    }

    fn set(&mut self, out: &mut Tee, setting: Setting) {
        match setting {
            Setting::Ports(ports) => self.options.ports = ports,
            Setting::Protocol(protocol) => self.options.protocol = protocol,
            Setting::SourcePort(port) => self.options.source_port = port,
            Setting::Community(community) => self.options.community = community,
            Setting::NoReverse => self.options.no_reverse ^= true,
            Setting::SlowLink => self.options.slow ^= true,
        }
        self.show(out);
    }

    /// What a shortcut stands for is asked in turn; what was set stays.
    fn shortcut(&self, out: &mut Tee, shortcut: &Shortcut) {
        for &(port, protocol) in shortcut.asks {
            if self.desk.stop.load(Ordering::Relaxed) {
                break;
            }
            let options = Options {
                ports: Ports::One(port),
                protocol,
                ..self.options.clone()
            };
            self.desk.ask(out, &self.node, &options);
            out.blank();
        }
    }

    fn show(&self, out: &mut Tee) {
        let options = &self.options;
        let ports = match &options.ports {
            Ports::One(port) => port.to_string(),
            Ports::Range(first, last) => format!("{first}:{last}"),
            Ports::List(ports) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                ports.join(",")
            }
        };
        let protocol = match options.protocol {
            Protocols::Tcp => "TCP",
            Protocols::Udp => "UDP",
            Protocols::Both => "BOTH",
        };
        out.line(&format!("Default Node: {}", self.node));
        out.blank();
        out.line("Current option values:");
        out.line(&format!("   end port= {ports}"));
        out.line(&format!("   protocol= {protocol}"));
        out.line(&match options.source_port {
            0 => "   source port= 0 (ephemeral)".to_owned(),
            port => format!("   source port= {port}"),
        });
        // The original does not name what is as it was at the beginning.
        let usual = Options::default();
        if options.community != usual.community {
            out.line(&format!("   community name= {}", options.community));
        }
        if options.no_reverse {
            out.line("   reverse name lookup= off");
        }
        if options.slow {
            out.line("   slow link= on");
        }
        out.blank();
    }
}
