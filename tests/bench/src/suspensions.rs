//! What suspensions cost: one of a guest that has written much, and what one writes of a guest that only slept and woke.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::Server;

use crate::Failure;
use crate::api::{Api, Launched};
use crate::client::{Connection, Trust};
use crate::microvms::rest;
use crate::stats::Samples;
use crate::table::{Row, Table};

/// What the guest has written since its last life began.
const DIRTY_MIB: u64 = 100;
/// The most that the median may be until that is durable.
const LIMIT: Duration = Duration::from_millis(300);
/// The most bytes that a suspension may write of a guest that only woke.
const IDLE_LIMIT: u64 = 8 << 20;

/// What was measured of the same MicroVM, life after life.
#[derive(Debug, Default)]
struct Figures {
    /// From the SuspendMicrovm call to SUSPENDED.
    dirty: Samples,
    /// Writing the same bytes to one file, and making that durable.
    raw: Samples,
    idle: Samples,
    dirty_bytes: Samples<u64>,
    idle_bytes: Samples<u64>,
}

/// The table of `samples` suspensions of each kind, of an image of the tests' own application.
pub(crate) async fn measure(server: &Server, image: &str, samples: usize) -> Result<Table, Failure> {
    let Figures { dirty, raw, idle, dirty_bytes, idle_bytes } = figures(server, image, samples).await?;
    let dirty_name = format!("SuspendMicrovm call → SUSPENDED, {DIRTY_MIB} MiB dirty");
    let rows = vec![
        Row::of(&dirty_name, &dirty).limit(LIMIT),
        Row::of("  the same bytes, written to one file and synced", &raw),
        Row::bytes("  bytes written of those", &dirty_bytes),
        Row::of("SuspendMicrovm call → SUSPENDED, idle since its resume", &idle),
        Row::bytes("  bytes written of an idle one", &idle_bytes).limit(IDLE_LIMIT),
    ];
    Ok(Table { name: "suspensions".into(), rows })
}

async fn figures(server: &Server, image: &str, samples: usize) -> Result<Figures, Failure> {
    let api = Api::new(server);
    let trust = Trust::bundle(Path::new(server.variable("SSL_CERT_FILE")))?;
    let endpoints = SocketAddr::from(([127, 0, 0, 1], server.endpoint_port()));
    let microvm = api.run(image).await?;
    let token = api.token(&microvm.id).await?;
    let ask = async |path: &str| {
        let mut connection = Connection::open(&trust, &microvm.endpoint, endpoints).await?;
        connection.get(path, Some(&token)).await.map(drop)
    };
    let suspension = server.microvm_dir(&microvm.id).join("suspended");
    let mut figures = Figures::default();
    for _ in 0..samples {
        ask(&format!("/fill?mib={DIRTY_MIB}")).await?;
        rest().await;
        let (took, layer) = suspend(&api, &microvm, &suspension).await?;
        figures.dirty.push(took);
        figures.dirty_bytes.push(fs::metadata(&layer)?.len());
        rest().await;
        figures.raw.push(raw(&layer, &suspension.join("device"), server.data_dir())?);
        ask("/").await?;
        rest().await;
        let (took, layer) = suspend(&api, &microvm, &suspension).await?;
        figures.idle.push(took);
        figures.idle_bytes.push(fs::metadata(&layer)?.len());
        ask("/").await?;
    }
    api.terminate(&microvm.id).await?;
    Ok(figures)
}

/// How long a suspension takes, and the layer that it wrote.
async fn suspend(api: &Api, microvm: &Launched, to: &Path) -> Result<(Duration, PathBuf), Failure> {
    let took = api.suspend(&microvm.id).await?;
    let layers = (0..).map(|number| to.join(format!("memory.{number}"))).take_while(|layer| layer.exists());
    Ok((took, layers.last().ok_or("a suspension has no layer")?))
}

/// The least that anything could do: the same bytes, written and made durable.
fn raw(layer: &Path, device: &Path, dir: &Path) -> Result<Duration, Failure> {
    let bytes = [fs::read(layer)?, fs::read(device)?];
    let path = dir.join("raw");
    let began = Instant::now();
    let mut file = File::create(&path)?;
    bytes.iter().try_for_each(|bytes| file.write_all(bytes))?;
    file.sync_all()?;
    let took = began.elapsed();
    fs::remove_file(&path)?;
    Ok(took)
}
