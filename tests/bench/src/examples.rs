//! The two applications of `examples/`: what users wait for, with the bare engine beside it.

use std::time::Duration;

use clap::ValueEnum;
use e2e::{Artifact, Image, ImageRequest, Server};

use crate::Failure;
use crate::baseline;
use crate::microvms::{AT_ONCE, Bench, Figures};
use crate::table::{Row, Table};

/// The most that the medians may be on a warm host without hardware virtualization, where it is the same for both.
mod limit {
    use std::time::Duration;

    pub(super) const SUSPEND: Duration = Duration::from_millis(300);
    pub(super) const TERMINATE: Duration = Duration::from_millis(50);
    pub(super) const TOGETHER: Duration = Duration::from_secs(2);
}

/// An application whose MicroVMs are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Example {
    /// Python, a thread for each request
    Hello,
    /// A static program in an empty container
    Native,
}

impl Example {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Native => "native",
        }
    }

    pub(crate) fn deploy(self, server: &Server) -> Image {
        let artifact = match self {
            Self::Hello => Artifact::of("examples/hello"),
            Self::Native => Artifact::native(),
        };
        ImageRequest::of(server, self.name(), &artifact).create(server).built(server)
    }

    /// The most private memory that a clone may have.
    pub(crate) fn memory_limit(self) -> u64 {
        match self {
            Self::Hello => 64 << 20,
            Self::Native => 40 << 20,
        }
    }

    fn launch_limit(self) -> Duration {
        Duration::from_millis(match self {
            Self::Hello => 180,
            Self::Native => 120,
        })
    }

    fn wake_limit(self) -> Duration {
        Duration::from_millis(match self {
            Self::Hello => 200,
            Self::Native => 140,
        })
    }
}

/// The table of an example.
pub(crate) async fn measure(
    server: &Server,
    example: Example,
    image: &str,
    samples: usize,
) -> Result<Table, Failure> {
    let bench = Bench::new(server, image)?;
    let figures = bench.cycles(samples).await?;
    let bare = baseline::measure(server, image, samples).await?;
    let mut rows = microvm_rows(example, &figures, &bare);
    let together = bench.together().await?;
    rows.push(Row::of(&format!("{AT_ONCE} RunMicrovm calls at once, the first time"), &together.first));
    rows.push(
        Row::of(&format!("{AT_ONCE} RunMicrovm calls at once → the last 200"), &together.all)
            .limit(limit::TOGETHER),
    );
    rows.push(Row::of("  each of them", &together.each));
    Ok(Table { name: example.name().into(), rows })
}

fn microvm_rows(example: Example, figures: &Figures, bare: &baseline::Figures) -> Vec<Row> {
    let compared = |name: &str, ours, bare, limit: Duration| Row::of(name, ours).limit(limit).against(bare);
    let [call, token, request] = &figures.parts;
    vec![
        compared("RunMicrovm call → first 200", &figures.launch, &bare.launch, example.launch_limit()),
        Row::of("  of it: the call", call),
        Row::of("  of it: the token", token),
        Row::of("  of it: connection and request", request),
        compared("request to SUSPENDED → 200", &figures.wake, &bare.wake, example.wake_limit()),
        compared("SuspendMicrovm call → SUSPENDED", &figures.suspend, &bare.suspend, limit::SUSPEND),
        compared("TerminateMicrovm call → TERMINATED", &figures.terminate, &bare.terminate, limit::TERMINATE),
    ]
}
