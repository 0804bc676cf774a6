//! Prints what the best engine of this machine observes, for as many seconds
//! as the first argument says (default 10).

use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(10);
    let started = Instant::now();
    let mut sensor = sensor::open(&sensor::Options::default())?;
    println!(
        "engine {} after {:?}",
        sensor.engine.name(),
        started.elapsed()
    );
    println!("hooks {:?}", sensor.hooks);
    for degradation in &sensor.degradations {
        println!("degraded {degradation}");
    }
    let looked = Instant::now();
    let snapshot = sensor.inspector.snapshot()?;
    println!(
        "{} sockets after {:?}",
        snapshot.sockets.len(),
        looked.elapsed()
    );
    for found in snapshot.sockets.iter().take(5) {
        println!("{found:?}");
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut batch = Vec::new();
    while Instant::now() < end {
        sensor.stream.read(&mut batch, Duration::from_millis(200))?;
        for observation in batch.drain(..) {
            println!("{observation:?}");
        }
    }
    println!("produced {:?}", sensor.inspector.produced()?);
    println!("unnumbered {}", sensor.inspector.unnumbered()?);
    Ok(())
}
