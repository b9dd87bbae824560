//! Whether a launch takes longer where there is more: disk, guest memory, MicroVMs that live, images, records.
//!
//! Along each axis the points take turns, so that a change of the machine's load meets all of them. At each, MicroVMs are
//! launched that find a spare clone waiting, and then, on the same server without spares, others that are restored while
//! their clients wait.

mod plot;
mod records;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use e2e::{Artifact, Image, ImageRequest, Server};
use serde::{Serialize, Serializer};
use tokio::runtime::Runtime;

use crate::Failure;
use crate::examples::Example;
use crate::microvms::{Bench, REPLENISH, Serving};
use crate::stats::Samples;
use crate::table::{Row, Table};

/// How often each point has its turn.
const ROUNDS: usize = 3;
/// Launches of each kind in a turn.
const TURN: usize = 4;
/// Spare clones that a server keeps bound how many images can take turns.
const FILES_MIB: [u64; 2] = [256, 1024];
const CLASSES_MIB: [u32; 2] = [2048, 8192];
const SMALLEST_CLASS_MIB: u32 = 512;
const LIVING: [usize; 4] = [0, 10, 30, 60];
const PAGE: usize = 4096;

/// Of what there is more and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A file in the image
    Disk,
    /// The image's size class
    Memory,
    /// MicroVMs that live
    Living,
    /// Images
    Images,
    /// MicroVMs that have ended and are on record
    Ended,
}

impl Kind {
    /// The name of its plot, what it is called there, and what its points count.
    fn names(self) -> [&'static str; 3] {
        match self {
            Self::Disk => ["launch-by-disk", "size of a file in the image", "MiB"],
            Self::Memory => ["launch-by-memory", "size class of the image", "MiB"],
            Self::Living => ["launch-by-living", "other MicroVMs that run", ""],
            Self::Images => ["launch-by-images", "images on record, with their files", ""],
            Self::Ended => ["launch-by-ended", "ended MicroVMs on record", ""],
        }
    }
}

/// The launches along one axis.
#[derive(Debug, Serialize)]
pub(crate) struct Axis {
    name: &'static str,
    of: &'static str,
    unit: &'static str,
    points: Vec<Point>,
}

/// The launches at one of its points.
#[derive(Debug, Default, Serialize)]
struct Point {
    at: u64,
    /// With a spare clone waiting.
    #[serde(serialize_with = "summary")]
    spare: Samples,
    /// With none.
    #[serde(serialize_with = "summary")]
    no_spare: Samples,
}

fn summary<S: Serializer>(samples: &Samples, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Summary {
        median_ms: Option<f64>,
        p90_ms: Option<f64>,
        samples: usize,
    }
    let millis = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64() * 1e3);
    let (median_ms, p90_ms) = (millis(samples.median()), millis(samples.percentile(90)));
    Summary { median_ms, p90_ms, samples: samples.len() }.serialize(serializer)
}

impl Axis {
    fn new(kind: Kind, points: impl IntoIterator<Item = u64>) -> Self {
        let [name, of, unit] = kind.names();
        let points = points.into_iter().map(|at| Point { at, ..Point::default() }).collect();
        Self { name, of, unit, points }
    }

    /// As lines for people.
    pub(crate) fn table(&self) -> Table {
        let rows = self.points.iter().flat_map(|point| {
            let at = format!("{} {}", point.at, self.unit);
            [
                Row::of(&format!("{}: RunMicrovm call → first 200", at.trim_end()), &point.spare),
                Row::of("  without a spare clone waiting", &point.no_spare),
            ]
        });
        Table { name: format!("launch by {}", self.of), rows: rows.collect() }
    }

    /// Draws it into a directory.
    pub(crate) fn plot(&self, dir: &Path) -> Result<(), Failure> {
        fs::create_dir_all(dir)?;
        Ok(fs::write(dir.join(format!("{}.svg", self.name)), plot::svg(self))?)
    }
}

/// A server with the images that the axes need.
pub(crate) struct Bed {
    host: Host,
    base: Image,
    /// By the MiB of a file in them, or of their class.
    disks: Vec<(u64, Image)>,
    classes: Vec<(u64, Image)>,
}

impl Bed {
    /// Builds what the axis of a kind needs, or all of them.
    pub(crate) fn build(only: Option<Kind>) -> Result<Self, Failure> {
        let server = Server::start();
        let wants = |kind| only.is_none_or(|only| only == kind);
        let base = Example::Native.deploy(&server);
        let disks = FILES_MIB.into_iter().filter(|_| wants(Kind::Disk));
        let disks = disks.map(|mib| (mib, with_file(&server, mib))).collect();
        let classes = CLASSES_MIB.into_iter().filter(|_| wants(Kind::Memory));
        let classes = classes.map(|mib| (mib.into(), of_class(&server, mib))).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let without_spares = server.scratch("without-spares.toml");
        fs::write(&without_spares, "max_spares = 0\n")?;
        Ok(Self { host: Host { server, runtime, without_spares }, base, disks, classes })
    }

    /// The axis of a kind.
    pub(crate) fn measure(&mut self, kind: Kind) -> Result<Axis, Failure> {
        let Self { host, base, disks, classes } = self;
        match kind {
            Kind::Disk => over_images(kind, host, &from(0, base, disks)),
            Kind::Memory => over_images(kind, host, &from(SMALLEST_CLASS_MIB.into(), base, classes)),
            Kind::Living => over_living(host, base),
            Kind::Images | Kind::Ended => records::measure(kind, host, base),
        }
    }
}

/// The server, which is started anew for each turn.
struct Host {
    server: Server,
    runtime: Runtime,
    /// Settings.
    without_spares: PathBuf,
}

fn from<'a>(at: u64, base: &'a Image, others: &'a [(u64, Image)]) -> Vec<(u64, &'a Image)> {
    std::iter::once((at, base)).chain(others.iter().map(|(at, image)| (*at, image))).collect()
}

/// The native example with a file of so many MiB, no page of it like another and none of zeros.
fn with_file(server: &Server, mib: u64) -> Image {
    let pages = 1..=(mib << 20) / PAGE as u64;
    let file: Vec<u8> = pages.flat_map(|page| page.to_le_bytes().repeat(PAGE / size_of::<u64>())).collect();
    let dockerfile = "FROM scratch\nCOPY server ballast /\nEXPOSE 8080\nCMD [\"/server\"]\n";
    let artifact = Artifact::native().file("Dockerfile", dockerfile).file("ballast", file);
    ImageRequest::of(server, &format!("disk-{mib}"), &artifact).create(server).built(server)
}

fn of_class(server: &Server, mib: u32) -> Image {
    let name = format!("class-{mib}");
    let request = ImageRequest::of(server, &name, &Artifact::native()).memory_mib(mib);
    request.create(server).built(server)
}

fn over_images(kind: Kind, host: &mut Host, images: &[(u64, &Image)]) -> Result<Axis, Failure> {
    let mut axis = Axis::new(kind, images.iter().map(|(at, _)| *at));
    for _ in 0..ROUNDS {
        for ((_, image), point) in images.iter().zip(&mut axis.points) {
            point.turn(host, image)?;
        }
    }
    Ok(axis)
}

fn over_living(host: &mut Host, image: &Image) -> Result<Axis, Failure> {
    let mut axis = Axis::new(Kind::Living, LIVING.map(|number| number as u64));
    for _ in 0..ROUNDS {
        let mut living = Vec::new();
        for (number, point) in LIVING.into_iter().zip(&mut axis.points) {
            let bench = Bench::new(&host.server, &image.arn)?;
            while living.len() < number {
                living.push(host.runtime.block_on(bench.launch())?.0);
            }
            point.turn(host, image)?;
        }
        host.runtime.block_on(end(&Bench::new(&host.server, &image.arn)?, &living))?;
    }
    Ok(axis)
}

/// The first launch of an image pays for what is made once: verifying the snapshot, filling caches.
async fn warm_up(bench: &Bench<'_>) -> Result<(), Failure> {
    let (first, _) = bench.launch().await?;
    end(bench, &[first]).await
}

async fn end(bench: &Bench<'_>, microvms: &[Serving]) -> Result<(), Failure> {
    for microvm in microvms {
        bench.terminate(microvm).await?;
    }
    Ok(())
}

impl Point {
    fn turn(&mut self, host: &mut Host, image: &Image) -> Result<(), Failure> {
        let Host { server, runtime, without_spares } = host;
        let settings = without_spares.to_str().ok_or("the settings have a strange path")?;
        let kinds = [(&mut self.spare, &[][..]), (&mut self.no_spare, &["--config", settings][..])];
        for (samples, arguments) in kinds {
            server.restart_with(arguments);
            runtime.block_on(launches(&Bench::new(server, &image.arn)?, samples))?;
        }
        Ok(())
    }
}

async fn launches(bench: &Bench<'_>, samples: &mut Samples) -> Result<(), Failure> {
    warm_up(bench).await?;
    for _ in 0..TURN {
        tokio::time::sleep(REPLENISH * 2).await;
        let (microvm, took) = bench.launch().await?;
        samples.push(took);
        end(bench, &[microvm]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_axis_as_json_has_its_points() {
        let mut axis = Axis::new(Kind::Disk, [0, 256]);
        axis.points[1].spare.push(Duration::from_millis(80));
        let none = json!({"median_ms": null, "p90_ms": null, "samples": 0});
        let one = json!({"median_ms": 80.0, "p90_ms": 80.0, "samples": 1});
        let expected = json!({"name": "launch-by-disk", "of": "size of a file in the image", "unit": "MiB",
            "points": [{"at": 0, "spare": none, "no_spare": none}, {"at": 256, "spare": one, "no_spare": none}]});
        assert_eq!(serde_json::to_value(axis).unwrap(), expected);
    }
}
