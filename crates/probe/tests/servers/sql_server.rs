//! SQL Server and its browser. Debian has neither, so both are played here with
//! the bytes that MS-SQLR and MS-TDS prescribe.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::thread;

use libtest_mimic::Failed;

use crate::Scene;
use crate::stage;

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene {
            name: "sql_browser_played",
            needs: &[],
            play: browser,
        },
        Scene {
            name: "sql_server_played",
            needs: &[],
            play: server,
        },
    ]
}

/// MS-SQLR §2.2.5: an instance that a client may reach in two ways.
const INSTANCE: &[u8] = b"ServerName;SQL-Server1;InstanceName;MSSQLSERVER;IsClustered;No;\
    Version;8.00.194;tcp;1433;np;\\\\SQL-Server1\\pipe\\sql\\query;;";

fn browser() -> Result<(), Failed> {
    let socket = UdpSocket::bind("127.0.0.1:1434")?;
    let server = thread::spawn(move || -> std::io::Result<Vec<u8>> {
        let mut buffer = [0; 64];
        let (length, client) = socket.recv_from(&mut buffer)?;
        let size = u16::try_from(INSTANCE.len()).map_err(std::io::Error::other)?;
        let reply = [&[5], size.to_le_bytes().as_slice(), INSTANCE].concat();
        socket.send_to(&reply, client)?;
        Ok(buffer[..length].to_vec())
    });
    let answer = stage::over_udp("ms-sql-m", "127.0.0.1:1434")?;
    stage::expect(&answer, "instance", "MSSQLSERVER")?;
    stage::expect(&answer, "instance", "8.00.194")?;
    let asked = server.join().map_err(|_| "the server panicked")??;
    if asked != [3] {
        return Err(format!("not CLNT_UCAST_EX: {asked:?}").into());
    }
    Ok(())
}

/// MS-TDS §2.2.6.5: version 16.0.1000.6, encryption required.
const PRELOGIN: &[u8] = b"\x04\x01\0\x25\0\0\x01\0\
    \0\0\x10\0\x06\x01\0\x16\0\x01\x02\0\x17\0\x01\xff\
    \x10\0\x03\xe8\0\x06\x03\0\0\0\0\0\0";

fn server() -> Result<(), Failed> {
    let listener = TcpListener::bind("127.0.0.1:1433")?;
    let server = thread::spawn(move || -> std::io::Result<Vec<u8>> {
        let (mut client, _) = listener.accept()?;
        let mut header = [0; 8];
        client.read_exact(&mut header)?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let mut body = vec![0; length.saturating_sub(header.len())];
        client.read_exact(&mut body)?;
        client.write_all(PRELOGIN)?;
        Ok(header.to_vec())
    });
    let answer = stage::over_tcp("ms-sql-s", "127.0.0.1:1433")?;
    stage::expect(&answer, "version", "16.0.1000.6")?;
    stage::expect(&answer, "product", "SQL Server 2022")?;
    stage::expect(&answer, "encryption", "required")?;
    let header = server.join().map_err(|_| "the server panicked")??;
    if header[..2] != [0x12, 1] {
        return Err(format!("not a pre-login message: {header:?}").into());
    }
    Ok(())
}
