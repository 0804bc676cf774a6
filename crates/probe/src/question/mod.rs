//! The questions: one file for each protocol.
//!
//! A question sends well-formed requests of its protocol and makes an
//! [`Answer`] of what comes back. It does not open sockets, choose ports or
//! print, so the same code runs against a server, a recorded reply and a
//! fuzzer ([`Script`]).

mod banner;
mod dns;
mod ftp;
mod guid;
mod http;
mod ike;
mod imap;
mod kerberos;
mod l2tp;
mod ldap;
mod mysql;
mod netbios;
mod nonce;
mod ntp;
mod pop3;
mod postgresql;
mod radius;
mod rdp;
mod redis;
mod reply;
mod rpc;
mod script;
mod sip;
mod smb;
mod smtp;
mod snmp;
mod sql_browser;
mod ssh;
mod tds;
mod tftp;
mod tls;
#[cfg(test)]
mod trial;
mod winsock_proxy;

use std::net::SocketAddr;

use event::Protocol;

pub use self::radius::DEFAULT_SECRET;
pub use self::script::Script;
use crate::{Answer, Datagrams, Fault, Stream};

/// A service's own question.
pub trait Question: Send + Sync {
    /// The name under which the services database (and `--as`) knows it, in
    /// lower case: `ldap`.
    fn name(&self) -> &'static str;

    /// Other names in the services database for the same protocol:
    /// `microsoft-ds` for `smb`.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// Over what it can be asked.
    fn over(&self) -> &'static [Protocol];

    /// Asks over a connection that has just been made.
    fn ask_stream(&self, _asked: &Asked<'_>, _stream: &mut Stream<'_>) -> Result<Answer, Fault> {
        Err(Fault::Unasked(Protocol::Tcp))
    }

    /// Whether the answer comes from another port than the one asked. Then
    /// [`ask_datagrams`](Self::ask_datagrams) needs an
    /// [`Unconnected`](crate::Unconnected) wire.
    fn answered_elsewhere(&self) -> bool {
        false
    }

    /// The local port from which it is best asked over UDP on port `_asked`, where
    /// some services answer no other. One that is taken or forbidden is no reason not to ask.
    ///
    /// It may be the port that is asked: on one of this machine's own addresses
    /// a socket bound to it would hear itself, so take another one there.
    fn source_port(&self, _asked: u16) -> Option<u16> {
        None
    }

    /// Whether services of this kind say nothing to whom they do not know, so that
    /// silence does not show a filter.
    fn may_be_ignored(&self) -> bool {
        false
    }

    /// Why it is not put to an address of this very machine unless it is asked
    /// for by its name; none if it may be.
    fn harms_this_machine(&self) -> Option<&'static str> {
        None
    }

    /// Asks over a socket connected to the port.
    fn ask_datagrams(
        &self,
        _asked: &Asked<'_>,
        _datagrams: &mut Datagrams<'_>,
    ) -> Result<Answer, Fault> {
        Err(Fault::Unasked(Protocol::Udp))
    }
}

/// Who is asked, and with what.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// The host as the user named it: for a TLS server name, a `Host:` line.
    pub host: &'a str,
    /// The address and port that the question goes to.
    pub address: SocketAddr,
    /// The SNMP community.
    pub community: &'a str,
    /// The secret that a RADIUS server shares with this host.
    pub secret: &'a str,
}

/// All questions.
pub fn all() -> &'static [&'static dyn Question] {
    &[
        &banner::Banner,
        &dns::Dns,
        &ftp::Ftp,
        &http::Http,
        &ike::Ike,
        &imap::Imap,
        &kerberos::Kerberos,
        &ldap::Ldap,
        &mysql::Mysql,
        &netbios::NetbiosNames,
        &l2tp::L2tp,
        &ntp::Ntp,
        &pop3::Pop3,
        &postgresql::Postgresql,
        &radius::Radius,
        &rdp::Rdp,
        &redis::Redis,
        &rpc::EndpointMapper,
        &smb::Smb,
        &smb::NetbiosSession,
        &smtp::Smtp,
        &snmp::Snmp,
        &sip::Sip,
        &sql_browser::SqlBrowser,
        &ssh::Ssh,
        &tds::Tds,
        &tftp::Tftp,
        &tls::TLS,
        &tls::DNS_OVER_TLS,
        &tls::FTPS,
        &tls::HTTPS,
        &tls::IMAPS,
        &tls::LDAPS,
        &tls::POP3S,
        &tls::REDISS,
        &tls::SIPS,
        &tls::SUBMISSIONS,
        &winsock_proxy::WinsockProxy,
    ]
}

/// The question for a service of that name over `protocol`, by name or alias,
/// in any case.
pub fn find(service: &str, protocol: Protocol) -> Option<&'static dyn Question> {
    let named = |name: &str| name.eq_ignore_ascii_case(service);
    all().iter().copied().find(|question| {
        question.over().contains(&protocol)
            && (named(question.name()) || question.aliases().iter().any(|alias| named(alias)))
    })
}
