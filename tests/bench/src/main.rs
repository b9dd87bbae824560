//! The benchmark.
mod client;
mod proxy_latency;
mod stats;
mod table;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let latencies = proxy_latency::measure()?;
    println!("{:?} {:?} {:?}", latencies.through.median(), latencies.direct.median(), latencies.added());
    Ok(())
}
