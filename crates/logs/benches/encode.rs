//! What a line costs. The lines about sockets are the recorder's hot path.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use event::{
    Action, Attribution, CloseReason, Cookie, Endpoint, Process, Protocol, Socket, TcpState,
    WallTime,
};
use jiff::tz::TimeZone;
use logs::format::clock::LocalClock;
use logs::format::events::{EventsEncoder, OwnerText};
use logs::format::ports;
use logs::read::Record;

fn process() -> Process {
    Process {
        pid: 31_337,
        ppid: Some(1),
        name: Some("nginx".into()),
        exe: Some("/usr/sbin/nginx".into()),
        cmdline: Some("nginx: worker process".into()),
        uid: Some(33),
        user: Some("www-data".into()),
        container: Some("docker:0123456789ab".into()),
        ..Process::default()
    }
}

fn socket(local: &str, remote: &str) -> Socket {
    let endpoint = |ip: &str, port| Endpoint::new(ip.parse().expect("an address"), port);
    Socket {
        cookie: Some(Cookie(0x00de_adbe)),
        netns: Some(4_026_531_840),
        protocol: Protocol::Tcp,
        local: endpoint(local, 443),
        remote: Some(endpoint(remote, 51_234)),
        state: Some(TcpState::TimeWait),
    }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    let mut clock = LocalClock::new(TimeZone::UTC);
    let owner = OwnerText::new(&process(), Some(WallTime(0)), &mut clock);
    let mut encoder = EventsEncoder::new(0);
    let close = Action::Close {
        reason: CloseReason::Closed,
        bytes_sent: Some(1234),
        bytes_received: Some(56_789),
        duration_us: Some(1_234_567),
    };
    let start = 1_792_893_598_000_000;
    let mut out = Vec::with_capacity(1 << 20);

    for (name, action, socket) in [
        (
            "accept ipv4",
            Action::Accept,
            socket("192.0.2.10", "198.51.100.200"),
        ),
        ("close ipv4", close, socket("192.0.2.10", "198.51.100.200")),
        (
            "close ipv6",
            close,
            socket("2001:db8::10", "2001:db8:1:2:3::200"),
        ),
    ] {
        let mut t = start;
        group.bench_function(format!("PR-EVENTS {name}"), |bencher| {
            bencher.iter(|| {
                // A new second for every 20,000 lines.
                t += 50;
                if out.len() > (1 << 20) - 2048 {
                    out.clear();
                }
                encoder.socket(
                    &mut out,
                    &mut clock,
                    WallTime(t),
                    black_box(&action),
                    black_box(&socket),
                    Attribution::Creator,
                    black_box(&owner),
                    None,
                );
            });
        });
    }

    let accepted = socket("192.0.2.10", "198.51.100.200");
    let mut t = start;
    group.bench_function("PR-PORTS row", |bencher| {
        bencher.iter(|| {
            t += 50;
            if out.len() > (1 << 20) - 2048 {
                out.clear();
            }
            let owner = Some(black_box(&owner));
            ports::row(
                &mut out,
                &mut clock,
                WallTime(t),
                black_box(&accepted),
                owner,
            );
        });
    });

    let process = process();
    group.bench_function("OwnerText", |bencher| {
        bencher.iter(|| OwnerText::new(black_box(&process), Some(WallTime(start)), &mut clock));
    });

    let mut line = Vec::new();
    let time = WallTime(start);
    encoder.socket(
        &mut line,
        &mut clock,
        time,
        &close,
        &accepted,
        Attribution::Creator,
        &owner,
        None,
    );
    group.bench_function("read a line", |bencher| {
        bencher.iter(|| Record::parse(black_box(&line)));
    });
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
