//! nginx: HTTP and HTTPS.

use std::fs;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;
use probe::{Fault, Value};

use crate::stage::{Server, expect, over_tcp, over_tcp_of, try_over_tcp};
use crate::{Scene, certificate};

const NGINX: &str = "/usr/sbin/nginx";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene {
        name: "nginx",
        needs: &[(NGINX, "nginx-light"), certificate::NEEDS],
        play,
    }]
}

fn play() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().display();
    let files = certificate::make(directory.path(), "www.example.test")?;
    let config = directory.path().join("nginx.conf");
    fs::write(
        &config,
        format!(
            "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log stderr;\n\
             events {{}}\n\
             http {{\n\
             access_log off;\n\
             client_body_temp_path {path}/1;\nproxy_temp_path {path}/2;\n\
             fastcgi_temp_path {path}/3;\nuwsgi_temp_path {path}/4;\nscgi_temp_path {path}/5;\n\
             ssl_certificate {};\nssl_certificate_key {};\ndefault_type text/html;\n\
             ssl_protocols TLSv1.2 TLSv1.3;\n\
             server {{ listen 127.0.0.1:80; server_name other; return 404; }}\n\
             server {{ listen 127.0.0.1:80; server_name www.example.test;\n\
             return 301 https://$host/scene-7391; }}\n\
             server {{ listen 127.0.0.1:443 ssl; server_name www.example.test;\n\
             return 200 '<html><title>Scene 7391 for $http_host</title>'; }}\n\
             server {{ listen 127.0.0.1:8443 ssl; ssl_protocols TLSv1.2;\n\
             return 200 '<TITLE>$http_host</TITLE>'; }}\n\
             }}\n",
            files.certificate.display(),
            files.key.display()
        ),
    )?;
    let mut server = Server::start(
        Command::new(NGINX)
            .arg("-e")
            .arg("stderr")
            .arg("-c")
            .arg(&config),
        directory.path(),
    )?;
    server.listens("127.0.0.1:80")?;

    let answer = over_tcp_of("http", "127.0.0.1:80", "www.example.test", "")?;
    assert_eq!(answer.get("status"), Some(&Value::Number(301)));
    expect(&answer, "Server", "nginx/")?;
    expect(&answer, "Location", "https://www.example.test/scene-7391")?;
    expect(&answer, "title", "301 Moved Permanently")?;
    let answer = over_tcp("http", "127.0.0.1:80")?;
    assert_eq!(answer.get("status"), Some(&Value::Number(404)));

    let answer = over_tcp_of("https", "127.0.0.1:443", "www.example.test", "")?;
    expect(&answer, "title", "Scene 7391 for www.example.test")?;
    for part in [
        "TLSv1.3",
        "TLS_AES_256_GCM_SHA384",
        "http/1.1",
        "192.0.2.7",
        "EC P-256",
    ] {
        expect(&answer, "tls", part)?;
    }
    expect(&answer, "tls", "\"expired\", value: Truth(false)")?;

    let answer = over_tcp_of("https", "127.0.0.1:8443", "www.example.test", "")?;
    expect(&answer, "title", "www.example.test:8443")?;
    expect(&answer, "tls", "TLSv1.2")?;
    expect(&answer, "tls", "TLS_ECDHE_ECDSA_WITH_")?;

    // What is asked in the wrong language is told so.
    let answer = over_tcp("http", "127.0.0.1:443")?;
    expect(
        &answer,
        "title",
        "400 The plain HTTP request was sent to HTTPS port",
    )?;
    let wait = Duration::from_mins(1);
    let fault = try_over_tcp("https", "127.0.0.1:80", wait)?;
    assert!(matches!(fault, Err(Fault::Malformed { .. })), "{fault:?}");
    // It says nothing unasked.
    let fault = try_over_tcp("banner", "127.0.0.1:80", wait)?;
    assert!(matches!(fault, Err(Fault::Silent(_))), "{fault:?}");
    Ok(())
}
