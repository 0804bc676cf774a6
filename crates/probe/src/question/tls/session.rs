//! One TLS connection over a [`Stream`]: the handshake, and what comes after.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::civil::DateTime;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
};

use super::hello::{self, First};
use crate::question::Asked;
use crate::{Certificate, Fact, Fault, Stream, Transport, Value};

/// What came of a handshake.
pub(super) struct Handshake<'s, 'a> {
    /// What was learnt, whether or not it came to a session.
    pub(super) facts: Vec<Fact>,
    /// What one line can tell.
    pub(super) summary: String,
    /// The connection, unless the two sides could not agree.
    pub(super) session: Option<Session<'s, 'a>>,
}

/// How many of the first bytes are kept, to tell what was chosen where the
/// library breaks off: a `ServerHello` is shorter.
const FIRST: usize = 1024;

/// Shakes hands over `stream`. That a server refuses, or chooses what is too
/// old for the library, is an outcome; that it does not speak TLS is a fault.
/// `now` is in UTC.
pub(super) fn shake<'s, 'a>(
    asked: &Asked<'_>,
    stream: &'s mut Stream<'a>,
    alpn: &[&[u8]],
    now: DateTime,
) -> Result<Handshake<'s, 'a>, Fault> {
    let witness = Arc::new(Witness::default());
    let config = config(&witness, alpn).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), server_name(asked));
    let connection = connection.map_err(io::Error::other)?;
    let mut session = Session { connection, stream };
    let mut first = Vec::new();
    let error = session.shake(&mut first)?;
    let first = match error {
        Some(_) => Some(First::read(&first)?),
        None => None,
    };

    let mut facts = match first {
        Some(First::Hello { version, suite }) => vec![
            Fact::of("version", hello::version_name(version)),
            Fact::of("cipherSuite", suite_name(suite.into())),
        ],
        Some(First::Alert(_)) => Vec::new(),
        None => session.facts(),
    };
    let mut summary = match facts.first() {
        Some(Fact {
            value: Value::Text(version),
            ..
        }) => version.clone(),
        _ => "TLS".to_owned(),
    };
    if let Some(error) = &error {
        let error = explanation(error, first);
        summary = format!("{summary}: {error}");
        facts.push(Fact::of("error", error));
    }
    if witness.asked_for_certificate.load(Ordering::Relaxed) {
        facts.push(Fact::of("clientCertificate", "requested"));
    }
    let chain = witness.chain.lock().unwrap_or_else(PoisonError::into_inner);
    tell_chain(&chain, now, &mut facts, &mut summary);
    Ok(Handshake {
        facts,
        summary,
        session: error.is_none().then_some(session),
    })
}

/// Adds the server's own certificate, and whose the others are.
fn tell_chain(
    chain: &[CertificateDer<'static>],
    now: DateTime,
    facts: &mut Vec<Fact>,
    summary: &mut String,
) {
    let Some((own, others)) = chain.split_first() else {
        return;
    };
    match Certificate::read(own) {
        Ok(certificate) => {
            let name = certificate.subject.common_name();
            let name = name.or(certificate.names.first().map(String::as_str));
            if let Some(name) = name {
                *summary = format!("{summary}, certificate of {name}");
            }
            if !certificate.is_valid(now) {
                summary.push_str(", not valid now");
            }
            facts.push(Fact::of("certificate", certificate.facts(now)));
        }
        Err(fault) => {
            let error = Fact::of("error", fault.to_string());
            facts.push(Fact::of("certificate", vec![error]));
        }
    }
    if !others.is_empty() {
        let subjects = others.iter().map(|other| match Certificate::read(other) {
            Ok(certificate) => certificate.subject.to_string().into(),
            Err(fault) => fault.to_string().into(),
        });
        facts.push(Fact::of("chain", subjects.collect::<Vec<Value>>()));
    }
}

/// Why there is no session.
fn explanation(error: &Error, first: Option<First>) -> String {
    match (error, first) {
        (Error::AlertReceived(alert), _) => hello::alert_name((*alert).into()),
        (_, Some(First::Hello { version, .. })) if version < 0x0303 => {
            let version = hello::version_name(version);
            format!("it chose {version}, which is not spoken here")
        }
        _ => error.to_string(),
    }
}

/// The name in IANA's registry, or the number.
fn suite_name(suite: CipherSuite) -> String {
    match suite.as_str() {
        // The library's own spelling for those of version 1.3.
        Some(name) => name.replacen("TLS13_", "TLS_", 1),
        None => format!("{:#06x}", u16::from(suite)),
    }
}

/// Who is asked for: a host by its name, which the server needs to choose a
/// certificate, or an address.
fn server_name(asked: &Asked<'_>) -> ServerName<'static> {
    match asked.host.parse::<IpAddr>() {
        Ok(address) => ServerName::IpAddress(address.into()),
        // What is no name (an address with a zone) is the address behind it.
        Err(_) => ServerName::try_from(asked.host.to_owned())
            .unwrap_or_else(|_| ServerName::IpAddress(asked.address.ip().into())),
    }
}

fn config(witness: &Arc<Witness>, alpn: &[&[u8]]) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(witness.clone())
        .with_client_cert_resolver(witness.clone());
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// Takes every certificate and notes it. Nothing secret is ever sent over such
/// a session, so there is nothing that an impostor could gain; what he says is
/// told as what the port says.
#[derive(Debug, Default)]
struct Witness {
    chain: Mutex<Vec<CertificateDer<'static>>>,
    asked_for_certificate: AtomicBool,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        *chain = vec![end_entity.clone().into_owned()];
        chain.extend(intermediates.iter().map(|other| other.clone().into_owned()));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    /// All of them, the weakest too: a server that has nothing better is to
    /// show its certificate all the same.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::ED25519,
            SignatureScheme::ED448,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
            SignatureScheme::ECDSA_SHA1_Legacy,
            SignatureScheme::RSA_PKCS1_SHA1,
        ]
    }
}

impl ResolvesClientCert for Witness {
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        self.asked_for_certificate.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A connection in TLS.
pub(super) struct Session<'s, 'a> {
    connection: ClientConnection,
    stream: &'s mut Stream<'a>,
}

impl Session<'_, '_> {
    /// What is left of the time for the whole conversation.
    pub(super) fn remaining(&self) -> Result<Duration, Fault> {
        self.stream.remaining()
    }

    /// Says that nothing more will come.
    pub(super) fn close(mut self) {
        self.connection.send_close_notify();
        // The other side may be gone by now.
        let _ = self.flush();
    }

    /// Shakes hands, and notes the first bytes that come. The library's error
    /// is an outcome, since it may tell what the server is.
    fn shake(&mut self, first: &mut Vec<u8>) -> Result<Option<Error>, Fault> {
        while self.connection.is_handshaking() {
            self.flush().map_err(|error| self.fault(error))?;
            if !self.connection.is_handshaking() {
                break;
            }
            match self.take(Duration::MAX, Some(first)) {
                Ok(0) => return Err(Fault::Closed),
                Ok(_) => {}
                Err(error) => return Err(self.fault(error)),
            }
            if let Err(error) = self.connection.process_new_packets() {
                // The alert that tells the other side.
                let _ = self.flush();
                return Ok(Some(error));
            }
        }
        self.flush().map_err(|error| self.fault(error))?;
        Ok(None)
    }

    /// What was agreed on.
    fn facts(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        if let Some(version) = self.connection.protocol_version() {
            facts.push(Fact::of("version", hello::version_name(version.into())));
        }
        if let Some(suite) = self.connection.negotiated_cipher_suite() {
            facts.push(Fact::of("cipherSuite", suite_name(suite.suite())));
        }
        if let Some(group) = self.connection.negotiated_key_exchange_group() {
            facts.push(Fact::of("group", format!("{:?}", group.name())));
        }
        if let Some(name) = self.connection.alpn_protocol() {
            facts.push(Fact::of("alpn", event::text::from_bytes(name)));
        }
        facts
    }

    /// Sends all that the library has to send.
    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            let mut tap = Tap {
                stream: self.stream,
                wait: Duration::MAX,
                first: None,
            };
            if self.connection.write_tls(&mut tap)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Hands to the library what comes next; 0 is the end.
    fn take(&mut self, wait: Duration, first: Option<&mut Vec<u8>>) -> io::Result<usize> {
        let mut tap = Tap {
            stream: self.stream,
            wait,
            first,
        };
        self.connection.read_tls(&mut tap)
    }

    /// The fault behind an error of [`Tap`]'s.
    fn fault(&self, error: io::Error) -> Fault {
        if error.kind() == io::ErrorKind::TimedOut {
            return self.stream.late();
        }
        match error.downcast::<Fault>() {
            Ok(fault) => fault,
            Err(error) => error.into(),
        }
    }
}

impl Transport for Session<'_, '_> {
    fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Many close the connection without saying so in TLS.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            // A change of keys may want a reply.
            self.flush()?;
            self.take(wait, None)?;
            if let Err(error) = self.connection.process_new_packets() {
                let _ = self.flush();
                return Err(io::Error::other(explanation(&error, None)));
            }
        }
    }

    fn write(&mut self, bytes: &[u8], _wait: Duration) -> io::Result<usize> {
        let written = self.connection.writer().write(bytes)?;
        self.flush()?;
        Ok(written)
    }
}

/// The stream as the library wants it. A fault goes through as an error, one
/// of time as `TimedOut`.
struct Tap<'t, 'a> {
    stream: &'t mut Stream<'a>,
    wait: Duration,
    /// Where the first bytes are noted.
    first: Option<&'t mut Vec<u8>>,
}

impl Read for Tap<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read_within(buffer, self.wait).map_err(error)?;
        if let Some(first) = &mut self.first {
            let room = FIRST.saturating_sub(first.len());
            first.extend_from_slice(&buffer[..read.min(room)]);
        }
        Ok(read)
    }
}

impl Write for Tap<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.send(bytes).map_err(error)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Silent(_) | Fault::Slow(_) => io::ErrorKind::TimedOut.into(),
        Fault::Io(error) => error,
        fault => io::Error::other(fault),
    }
}
